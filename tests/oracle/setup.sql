-- Make a real Oracle database fit for tests/unit/test_genius.py: package, tables and grants, in the schema of the user
-- that the tests log in as. The user must exist. Works on 11.2 XE and later.
-- Run it once as a DBA: sqlplus system@HOST:1521/XE @tests/oracle/setup.sql GENIUS
WHENEVER SQLERROR EXIT FAILURE
SET VERIFY OFF
DEFINE owner = &1

CREATE USER acpdb IDENTIFIED BY "not-for-logins" ACCOUNT LOCK;
ALTER USER acpdb QUOTA UNLIMITED ON users;
ALTER USER &owner QUOTA UNLIMITED ON users;
GRANT CREATE SESSION, CREATE JOB, CREATE TABLE, CREATE PROCEDURE TO &owner;
-- The jobs run with direct grants only; a role is not enough.
GRANT EXECUTE ON sys.dbms_lock TO &owner;

CREATE TABLE acpdb.ac_glopenbalance (
    coacode VARCHAR2(20), description VARCHAR2(200), glyear VARCHAR2(4), glmonth VARCHAR2(2), branch VARCHAR2(10),
    beginning_debit NUMBER(20, 2), beginning_credit NUMBER(20, 2), debit_amount NUMBER(20, 2),
    credit_amount NUMBER(20, 2), ending_debit NUMBER(20, 2), ending_credit NUMBER(20, 2),
    createby VARCHAR2(30), createdate DATE);
GRANT SELECT, INSERT, DELETE ON acpdb.ac_glopenbalance TO &owner;

-- How the next run of the procedure goes: seconds, status and message; and what it was started for.
CREATE TABLE &owner..fi806_control (seconds NUMBER NOT NULL, status VARCHAR2(10), message VARCHAR2(4000));
INSERT INTO &owner..fi806_control VALUES (1, '1', NULL);
CREATE TABLE &owner..fi806_starts (at TIMESTAMP, year VARCHAR2(4), month VARCHAR2(2), user_id VARCHAR2(30));
COMMIT;

CREATE OR REPLACE PACKAGE &owner..package_rpt_ac_fi806 AS
  PROCEDURE get_master_data(
    p_year VARCHAR2, p_month_from VARCHAR2, p_month_to VARCHAR2, p_user_id VARCHAR2,
    p_status OUT VARCHAR2, p_error_message OUT VARCHAR2);
END;
/
CREATE OR REPLACE PACKAGE BODY &owner..package_rpt_ac_fi806 AS
  PROCEDURE note_start(p_year VARCHAR2, p_month VARCHAR2, p_user_id VARCHAR2) IS
    PRAGMA AUTONOMOUS_TRANSACTION;
  BEGIN
    INSERT INTO fi806_starts VALUES (SYSTIMESTAMP, p_year, p_month, p_user_id);
    COMMIT;
  END;

  PROCEDURE get_master_data(
    p_year VARCHAR2, p_month_from VARCHAR2, p_month_to VARCHAR2, p_user_id VARCHAR2,
    p_status OUT VARCHAR2, p_error_message OUT VARCHAR2) IS
    v_seconds NUMBER;
  BEGIN
    note_start(p_year, p_month_from, p_user_id);
    SELECT seconds, status, message INTO v_seconds, p_status, p_error_message FROM fi806_control;
    sys.dbms_lock.sleep(v_seconds);
    DELETE FROM acpdb.ac_glopenbalance WHERE glyear = p_year AND glmonth = p_month_from;
    INSERT INTO acpdb.ac_glopenbalance
      VALUES ('11010101', 'Cash', p_year, p_month_from, '001', 10, 0, 5.25, 0, 15.25, 0, p_user_id, SYSDATE);
    INSERT INTO acpdb.ac_glopenbalance
      VALUES ('31010101', 'Capital', p_year, p_month_from, '001', 0, 10, 0, 5.25, 0, 15.25, p_user_id, SYSDATE);
    COMMIT;
  END;
END;
/
EXIT
