//! Months, wrong clocks, the archive, and totals that stay right whoever writes.

use super::{ALL, catalog, config, entry, home, now, total};
use model::{EventId, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::retention::{Cutoffs, Outdated};
use storage::catalog::{AuditEntry, AuditFilter, Catalog, CatalogConfig, PostgresConfig, Purged, open};
use testkit::servers::PostgresServer;

const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn of(number: u64, accepted: &str, timestamp: &str) -> AuditEntry {
    AuditEntry { event_id: EventId::new(at(accepted), 7, number), event_timestamp: at(timestamp), ..entry(number) }
}

/// What a round of retention does when there is nothing left to remove.
async fn chore(catalog: &Arc<dyn Catalog>) {
    let long_ago = at("1900-01-01T00:00:00Z");
    assert_eq!(catalog.purge(long_ago, long_ago, 1).await.unwrap(), Purged::default());
}

fn where_rows_lie(server: &PostgresServer) -> Vec<String> {
    let sql = "SELECT tableoid::regclass::text || ' ' || count(*) FROM event_audit_log GROUP BY tableoid \
               ORDER BY tableoid::regclass::text";
    server.psql(sql).lines().map(Into::into).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn this_month_and_three_more_are_there_from_the_start() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    let made = server.psql(
        "SELECT count(*) FROM partition_health_summary p, generate_series(0, 3) n \
         WHERE p.partition_name = 'event_audit_log_' || to_char(now() AT TIME ZONE 'UTC' + n * interval '1 month', 'YYYY_MM') \
         AND p.range_start <= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + n * interval '1 month'",
    );
    assert_eq!(made, "4");
    assert_eq!(server.psql("SELECT count(*) FROM partition_health_summary WHERE is_default"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_arrives_gets_a_partition_and_a_wrong_clock_does_not() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    let accepted = "2031-06-15T00:00:00Z";
    let entries = vec![
        of(1, accepted, "2031-06-14T23:00:00Z"),
        of(2, accepted, "2030-05-01T00:00:00Z"), // 13 months back
        of(3, accepted, "2030-04-30T23:59:59Z"), // 14
        of(4, accepted, "2031-09-30T00:00:00Z"), // 3 ahead
        of(5, accepted, "2031-10-01T00:00:00Z"), // 4
        of(6, accepted, "1970-01-01T00:00:00Z"),
        of(7, accepted, "9999-12-30T00:00:00Z"),
    ];
    catalog.record(&home(), entries.clone(), Vec::new()).await.unwrap();
    catalog.record(&home(), entries, Vec::new()).await.unwrap();
    let expected = [
        "event_audit_log_2030_05 1",
        "event_audit_log_2031_06 1",
        "event_audit_log_2031_09 1",
        "event_audit_log_default 4",
    ];
    assert_eq!(where_rows_lie(&server), expected);
    assert_eq!(total(&catalog).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_default_partition_caught_moves_when_its_month_is_made() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT TIMESTAMPTZ '2033-02-10 00:00Z', 'h', 1, 'Ignore' FROM generate_series(1, 30); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES ('2033-03-01 00:00Z', 'h', 1, 'Ignore'), ('2033-01-31 23:59:59Z', 'h', 1, 'Ignore')",
    );
    assert_eq!(where_rows_lie(&server), ["event_audit_log_default 32"]);
    assert_eq!(total(&catalog).await, 32, "rows of others are counted");
    assert_eq!(server.psql("SELECT muttd_make_month('2033-02-14', false)"), "", "only where nothing is to be moved");
    server.psql("SELECT create_monthly_partition('2033-02-14')");
    assert_eq!(where_rows_lie(&server), ["event_audit_log_2033_02 30", "event_audit_log_default 2"]);
    assert_eq!(total(&catalog).await, 32);
    assert_eq!(server.psql("SELECT muttd_make_month('2033-02-01', true)"), "event_audit_log_2033_02", "again: nothing");
    assert_eq!(
        server.psql("SELECT row_count_estimate FROM partition_health_summary WHERE range_start = '2033-02-01Z'"),
        "30"
    );
    // Of last month, while nobody looked: found by the next chore.
    server.psql(
        "SET session_replication_role = replica; \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES (date_trunc('month', now()) - interval '40 days', 'late', 1, 'Ignore')",
    );
    chore(&catalog).await;
    let partition = server.psql("SELECT tableoid::regclass FROM event_audit_log WHERE hostname = 'late'");
    assert!(partition.starts_with("event_audit_log_2"), "{partition}");
    server.psql("SELECT muttd_recount()");
    assert_eq!(total(&catalog).await, 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_default_partition_holds_up_neither_start_nor_chore() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    // As slow to move as millions of rows.
    server.psql(
        "DO $$ BEGIN EXECUTE 'DROP TABLE event_audit_log_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'); END $$; \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES (now(), 'h', 1, 'Ignore'); \
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(25); RETURN NULL; END $$; \
         CREATE TRIGGER slow AFTER DELETE ON event_audit_log_default FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let limited = PostgresConfig { statement_timeout: Duration::from_secs(20), ..config(&server, server.database()) };
    let catalog = open(CatalogConfig::Postgres(limited)).await.unwrap();
    assert_eq!(where_rows_lie(&server), ["event_audit_log_default 1"], "the start does not wait for it");
    chore(&catalog).await;
    let lies = where_rows_lie(&server);
    assert!(lies.len() == 1 && !lies[0].contains("default"), "the limit of other statements is none of it: {lies:?}");
    assert_eq!(total(&catalog).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn months_that_were_made_in_another_time_zone_leave_neither_overlap_nor_gap() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    for (zone, year) in [("America/New_York", 2041), ("Europe/Berlin", 2043), ("Asia/Kolkata", 2045)] {
        server.psql(&format!(
            "SET timezone = '{zone}'; CREATE TABLE event_audit_log_{year}_02 PARTITION OF event_audit_log \
             FOR VALUES FROM ('{year}-02-01') TO ('{year}-03-01')"
        ));
        for month in [3, 1, 2] {
            server.psql(&format!("SELECT create_monthly_partition('{year}-0{month}-01')"));
        }
        let joined = server.psql(&format!(
            "SELECT count(*), count(*) FILTER (WHERE follows) FROM \
             (SELECT range_start = lag(range_end) OVER (ORDER BY range_start) AS follows FROM partition_health_summary \
              WHERE partition_name LIKE 'event_audit_log_{year}%') p"
        ));
        assert_eq!(joined, "3|2", "{zone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_stay_right_whoever_writes_and_drops() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    catalog.record(&home(), (0..100).map(entry).collect(), Vec::new()).await.unwrap();
    assert_eq!(total(&catalog).await, 100);
    server.psql("DELETE FROM event_audit_log WHERE hostname = 'router-3'");
    assert_eq!(total(&catalog).await, 90);
    server.psql("UPDATE event_audit_log SET event_timestamp = '2051-01-01' WHERE hostname = 'router-4'");
    server.psql("SELECT muttd_recount()");
    assert_eq!(total(&catalog).await, 90);
    // The original's cron makes partitions by itself.
    server.psql(
        "CREATE TABLE event_audit_log_2052_01 PARTITION OF event_audit_log \
         FOR VALUES FROM ('2052-01-01Z') TO ('2052-02-01Z'); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT '2052-01-05', 'x', 1, 'Ignore' FROM generate_series(1, 7)",
    );
    assert_eq!(total(&catalog).await, 97);
    chore(&catalog).await;
    server.psql("SELECT muttd_compact_counts()");
    assert_eq!(total(&catalog).await, 97);
    server.psql("ALTER TABLE event_audit_log DETACH PARTITION event_audit_log_2052_01");
    assert_eq!(total(&catalog).await, 90);
    server.psql("DROP TABLE event_audit_log_2026_11");
    assert_eq!(total(&catalog).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_to_the_archive_and_leave_it_years_later() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    // The device's clock says nothing about age; of the original's rows it is all we have.
    let old = of(1, "2026-01-01T00:00:00Z", "2026-11-01T00:00:00Z");
    let fresh = of(2, "2026-11-01T00:00:00Z", "2026-01-01T00:00:00Z");
    catalog.record(&home(), vec![old, fresh], Vec::new()).await.unwrap();
    server.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT t, 'foreign', 1, 'Ignore' FROM (VALUES (TIMESTAMPTZ '2026-01-02'), ('2026-11-02')) v (t), generate_series(1, 5)",
    );
    let before = now().minus(90 * DAY);
    assert_eq!(catalog.archive(before, 4).await.unwrap(), 4);
    assert_eq!(catalog.archive(before, 4).await.unwrap(), 2);
    assert_eq!(catalog.archive(before, 4).await.unwrap(), 0);
    assert_eq!(total(&catalog).await, 6);
    let kept = server.psql(
        "SELECT hostname, count(*), count(original_id), count(archived_from_partition) FROM event_audit_log_archive \
         GROUP BY hostname ORDER BY hostname",
    );
    assert_eq!(kept, "foreign|5|5|5\nrouter-1|1|1|1");
    assert_eq!(catalog.purge(before, before, 100).await.unwrap().events, 0);
    assert_eq!(catalog.purge_archive(at("2026-01-01T12:00:00Z"), 100).await.unwrap(), 1);
    assert_eq!(catalog.purge_archive(before, 3).await.unwrap(), 0, "only archived a moment ago");
    server.psql("UPDATE event_audit_log_archive SET archived_at = '2026-03-01'");
    assert_eq!(catalog.purge_archive(before, 3).await.unwrap(), 3);
    assert_eq!(catalog.purge_archive(before, 3).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_wrong_clock_stays_in_the_archive_as_long_as_any_other() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES ('1970-01-01 00:05Z', 'a', 1, 'Ignore'), ('0044-03-15 BC', 'b', 1, 'Ignore'), \
                ('-infinity', 'c', 1, 'Ignore')",
    );
    let years_ago = now().minus(7 * 365 * DAY);
    assert_eq!(catalog.archive(now().minus(90 * DAY), 100).await.unwrap(), 3);
    assert_eq!(catalog.purge_archive(years_ago, 100).await.unwrap(), 0);
    // One that arrives between the last round of archiving and the purge.
    server.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES ('1970-01-01 00:05Z', 'd', 1, 'Ignore')",
    );
    assert_eq!(catalog.purge(now().minus(90 * DAY), years_ago, 100).await.unwrap().events, 1);
    assert_eq!(server.psql("SELECT delete_old_archives(7)"), "0");
    assert_eq!(server.psql("SELECT string_agg(hostname, '' ORDER BY hostname) FROM event_audit_log_archive"), "abcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_monthly_partitions_are_dropped_by_age() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    server.psql(
        "SELECT create_monthly_partition('2019-03-01'); \
         CREATE TABLE event_audit_log_legacy PARTITION OF event_audit_log FOR VALUES FROM (MINVALUE) TO ('2015-01-01Z'); \
         CREATE TABLE audit_legal_hold_2018 PARTITION OF event_audit_log \
         FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')",
    );
    server.psql("SELECT drop_old_partitions(12)");
    let left = server.psql(
        "SELECT to_regclass('event_audit_log_2019_03'), to_regclass('event_audit_log_legacy'), \
                            to_regclass('audit_legal_hold_2018'), to_regclass('event_audit_log_default')",
    );
    assert_eq!(left, "|event_audit_log_legacy|audit_legal_hold_2018|event_audit_log_default");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_of_the_contract_work() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "SELECT create_monthly_partition((now() - interval '100 days')::date), create_monthly_partition('2019-03-01'); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT now() - n * interval '1 day', 'h', 1, 'Ignore' FROM generate_series(80, 119) n; \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES ('2019-03-03', 'h', 1, 'Ignore')",
    );
    assert_eq!(server.psql("SELECT archive_old_events(90, 7)"), "31");
    assert_eq!(total(&catalog).await, 10);
    let figures =
        server.psql("SELECT metric_name, metric_value FROM get_archive_statistics() WHERE metric_name LIKE '%Events%'");
    assert_eq!(figures, "Total Archived Events|31\nActive Events Count|10");
    assert_eq!(server.psql("SELECT delete_old_archives(7)"), "0", "archived just now");
    server.psql("UPDATE event_audit_log_archive SET archived_at = event_timestamp + interval '90 days'");
    assert_eq!(server.psql("SELECT delete_old_archives(7)"), "1");
    assert_eq!(server.psql("SELECT archive_old_events()"), "0");
    assert_eq!(server.psql("SELECT delete_old_archives(retention_years => 7)"), "0");
    server.psql("SELECT create_monthly_partition(start_date => '2019-04-01')");
    let shown = server.psql(
        "SELECT partition_range, partition_size <> '', row_count_estimate FROM partition_health_summary \
         WHERE partition_name = 'event_audit_log_2019_04'",
    );
    assert_eq!(shown, "FOR VALUES FROM ('2019-04-01 00:00:00+00') TO ('2019-05-01 00:00:00+00')|t|0");
    for day in ["NULL", "'0044-03-01 BC'", "'infinity'", "'12000-01-01'"] {
        let error = server.try_psql(server.database(), &format!("SELECT create_monthly_partition({day})")).unwrap_err();
        assert!(error.contains("wants a day of the years 1 to 9998, not "), "{day}: {error}");
    }
    server.psql("SELECT drop_old_partitions(retention_months => 60)");
    assert_eq!(server.psql("SELECT to_regclass('event_audit_log_2019_03') IS NULL"), "t");
    let filter = AuditFilter { hostname: Some("h".into()), ..Default::default() };
    assert_eq!(catalog.audit_log(&home(), &filter, ALL).await.unwrap().total, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_months_beyond_retention_are_dropped() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "SELECT create_monthly_partition('2020-01-01'), create_monthly_partition('2020-02-01'); \
                 INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
                 VALUES ('2020-02-02', 'h', 1, 'Ignore')",
    );
    catalog.purge(at("2020-02-01T00:00:00Z"), at("2020-01-01T00:00:00Z"), 10).await.unwrap();
    assert_eq!(server.psql("SELECT to_regclass('event_audit_log_2020_01') IS NULL"), "t");
    assert_eq!(where_rows_lie(&server), ["event_audit_log_2020_02 1"]);
    assert_eq!(total(&catalog).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn months_are_made_while_others_write() {
    let server = PostgresServer::start();
    let (one, two) = (catalog(&server).await, catalog(&server).await);
    let mut writers = tokio::task::JoinSet::new();
    for (n, catalog) in [one.clone(), two.clone(), one.clone(), two.clone()].into_iter().enumerate() {
        writers.spawn(async move {
            for month in 1..=12 {
                let accepted = format!("2061-{month:02}-15T00:00:00Z");
                let number = (n as u64) * 1_000;
                let batch = (0..50).map(|i| of(number + i, &accepted, &accepted)).collect();
                catalog.record(&home(), batch, Vec::new()).await.unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    assert_eq!(one.audit_log(&home(), &AuditFilter::default(), ALL).await.unwrap().total, 4 * 12 * 50);
    assert_eq!(server.psql("SELECT count(*) FROM event_audit_log"), "2400");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_counts_read_indexes_only() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    catalog.record(&home(), (0..5_000).map(entry).collect(), Vec::new()).await.unwrap();
    server.psql("VACUUM ANALYZE event_audit_log");
    for sql in [
        "SELECT id, event_timestamp FROM event_audit_log WHERE org = 'default' ORDER BY event_timestamp DESC, id DESC LIMIT 50",
        "SELECT id, event_timestamp FROM event_audit_log WHERE org = 'default' AND hostname = 'router-1' \
         ORDER BY event_timestamp DESC, id DESC LIMIT 50",
        "SELECT count(*) FROM event_audit_log WHERE org = 'default' AND matched_rule_id = 5",
        "SELECT id, event_timestamp FROM event_audit_log WHERE org = 'default' AND event_timestamp <= '2026-11-22 12:00Z' \
         AND (event_timestamp, id) < ('2026-11-22 12:00Z', 4000) ORDER BY event_timestamp DESC, id DESC LIMIT 50",
    ] {
        let plan = server.psql(&format!("SET enable_seqscan = off; SET enable_bitmapscan = off; EXPLAIN {sql}"));
        assert!(
            plan.contains("Index Only Scan") && !plan.contains("Seq Scan") && !plan.contains("Sort  ("),
            "{sql}:\n{plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_where_is_told_by_partition_and_archive() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "SELECT create_monthly_partition('2020-02-01'); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT '2020-02-02', 'h', 1, 'Ignore' FROM generate_series(1, 3); \
         SELECT archive_old_events(90, 2); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         VALUES ('2020-02-03', 'h', 1, 'Ignore')",
    );
    let holdings = catalog.holdings().await.unwrap();
    let archive = holdings.archive.unwrap();
    assert_eq!((holdings.events, archive.rows), (1, 3));
    assert_eq!(archive.oldest_event, Some(at("2020-02-02T00:00:00Z")));
    assert!(archive.bytes > 0);
    let month = &holdings.partitions[0];
    assert_eq!((month.name.as_str(), month.rows), ("event_audit_log_2020_02", 1));
    assert_eq!(month.days, Some(("2020-02-01".to_owned(), "2020-03-01".to_owned())));
    assert!(holdings.partitions.len() > 4, "this month's and the next three: {:?}", holdings.partitions);
    let before = Cutoffs {
        events: at("2020-03-01T00:00:00Z"),
        archive: at("2020-02-03T00:00:00Z"),
        changes: at("2020-01-01T00:00:00Z"),
    };
    let outdated = |archived| Outdated { events: 1, archived: Some(archived), alerts: 0, incidents: 0, changes: 0 };
    assert_eq!(catalog.outdated(before).await.unwrap(), outdated(0), "archived just now, whatever their own time says");
    server.psql("UPDATE event_audit_log_archive SET archived_at = event_timestamp");
    assert_eq!(catalog.outdated(before).await.unwrap(), outdated(3));
}
