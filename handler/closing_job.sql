-- The block of a closing job. The service fills in the values in braces; each is checked before.
-- The job guards itself, because any query from outside can be overtaken before the procedure starts: the start mark
-- {job}_S decides. If this job takes it first, the procedure runs. If the service takes it first, to give the job up,
-- the procedure never runs. The marker in the guard's errors separates them from the procedure's errors of the same
-- number.
-- The end is stored as schedule {job}_R, "outcome status", because a job of 11.2 has no channel for an OUT value, and
-- its log can be purged; an error there changes nothing. CREATE_SCHEDULE commits, so the procedure's work is committed
-- or rolled back before it. ORA-01013 is a stopped job, whose outcome is unknown.
DECLARE
  v_status  VARCHAR2(4000);
  v_message VARCHAR2(4000);
  v_other   VARCHAR2(30);
  v_end     VARCHAR2(240);
  e_exists  EXCEPTION;
  PRAGMA EXCEPTION_INIT(e_exists, -27477);
BEGIN
  BEGIN
    DBMS_SCHEDULER.CREATE_SCHEDULE(
      schedule_name => '{job}_S', repeat_interval => 'FREQ=YEARLY', comments => 'started {about}');
  EXCEPTION
    WHEN e_exists THEN
      raise_application_error(-20808, '{marker} has started once already, or was given up');
  END;
  SELECT MIN(job_name) INTO v_other FROM user_scheduler_jobs
   WHERE state = 'RUNNING' AND job_name <> '{job}'
     AND (job_name LIKE '{long_name}' ESCAPE '\' OR job_name LIKE '{short_name}' ESCAPE '\')
     AND job_name NOT IN (SELECT SUBSTR(schedule_name, 1, LENGTH(schedule_name) - 2)
                            FROM user_scheduler_schedules WHERE comments LIKE 'given up%');
  IF v_other IS NOT NULL THEN
    raise_application_error(-20807, '{marker} has not called the procedure: ' || v_other || ' is running');
  END IF;
  BEGIN
    Package_Rpt_Ac_Fi806.get_master_data('{year}', '{month}', '{month}', '{user_id}', v_status, v_message);
  EXCEPTION
    WHEN OTHERS THEN
      IF SQLCODE <> -1013 THEN
        ROLLBACK;
        v_end := 'failed ORA' || SQLCODE;
        BEGIN
          DBMS_SCHEDULER.CREATE_SCHEDULE(
            schedule_name => '{job}_R', repeat_interval => 'FREQ=YEARLY', comments => v_end);
        EXCEPTION
          WHEN OTHERS THEN
            NULL;
        END;
      END IF;
      RAISE;
  END;
  IF v_status IS NULL OR v_status {failure} THEN
    ROLLBACK;
    v_end := 'failed ' || SUBSTR(v_status, 1, 50);
  ELSE
    COMMIT;
    v_end := 'succeeded ' || SUBSTR(v_status, 1, 50);
  END IF;
  BEGIN
    DBMS_SCHEDULER.CREATE_SCHEDULE(
      schedule_name => '{job}_R', repeat_interval => 'FREQ=YEARLY', comments => v_end);
  EXCEPTION
    WHEN OTHERS THEN
      NULL;
  END;
  IF v_end LIKE 'failed%' THEN
    raise_application_error(-20806, '{marker} ' || NVL(v_message, {no_message}));
  END IF;
END;
