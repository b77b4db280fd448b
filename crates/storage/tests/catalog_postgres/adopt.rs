//! Databases of the original, in the states in which they are found, and versions of our own.

use super::{ALL, admin, catalog, config, entry, home, now, total};
use model::ErrorKind;
use runtime::{Credentials, Secret};
use storage::catalog::detection_rules::DocumentChange;
use storage::catalog::fleet::{Enrolled, Enrolment, HostFacts, NewToken};
use storage::catalog::{AuditFilter, CatalogConfig, ConfigChangeFilter, PostgresConfig, open, postgres_advice};
use testkit::servers::PostgresServer;
use tokio::task::JoinSet;

const SCHEMA: &str = include_str!("../../migrations/postgres/fixtures/mutt_2_5.sql");
const AUDIT: &str = include_str!("../../migrations/postgres/fixtures/mutt_2_5_audit.sql");
const PARTITIONS: &str = "SELECT create_monthly_partition(DATE '2025-12-01'), create_monthly_partition(now()::date);";
const ROWS: &str = "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision, \
                    forwarded_to_moog, raw_message) SELECT t, 'sw' || n % 3, 1 + n % 5, 'Ticket_only', true, '{}' \
                    FROM generate_series(1, 50) n, (VALUES (TIMESTAMPTZ '2025-12-24 18:00Z'), (now())) v (t);";

fn unpartitioned() -> String {
    SCHEMA.replace(") PARTITION BY RANGE (event_timestamp);", ");")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_the_original_is_adopted_without_losing_a_row() {
    let server = PostgresServer::start();
    let states = [
        ("empty", String::new(), 0, 0),
        ("schema", SCHEMA.to_owned(), 0, 0),
        ("schema_and_audit", format!("{SCHEMA}{AUDIT}"), 0, 4),
        ("partitions", format!("{SCHEMA}{PARTITIONS}"), 0, 0),
        ("rows", format!("{SCHEMA}{AUDIT}{PARTITIONS}{ROWS}"), 100, 4),
        (
            "no_key",
            format!(
                "{SCHEMA}{PARTITIONS}{ROWS}ALTER TABLE event_audit_log DROP CONSTRAINT fk_event_audit_matched_rule;"
            ),
            100,
            0,
        ),
        ("default", format!("{SCHEMA}CREATE TABLE rest PARTITION OF event_audit_log DEFAULT;{ROWS}"), 100, 0),
        ("flat", unpartitioned(), 0, 0),
        ("flat_rows", format!("{}{AUDIT}{ROWS}", unpartitioned()), 100, 4),
        ("only_audit", AUDIT.to_owned(), 0, 4),
    ];
    for (name, sql, events, changes) in states {
        server.create_database(name);
        server.psql_in(name, &sql);
        let rules = if sql.contains("alert_rules (match_string") { 5 } else { 0 };
        let catalog =
            open(CatalogConfig::Postgres(config(&server, name))).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(catalog.rules(&home()).await.unwrap().len(), rules, "{name}");
        assert_eq!(catalog.dev_hosts(&home()).await.unwrap().len(), if rules == 0 { 0 } else { 3 }, "{name}");
        assert_eq!(total(&catalog).await, events, "{name}");
        let seen = catalog.config_changes(&home(), &ConfigChangeFilter::default(), ALL).await.unwrap();
        assert_eq!(seen.total, changes, "{name}");
        let archived = server.psql_in(name, "SELECT count(*) FROM event_audit_log_archive WHERE hostname = 'old'");
        assert_eq!(archived, if changes == 4 { "1" } else { "0" }, "{name}");
        // It works like any other, beside the old rows.
        catalog.record(&home(), vec![entry(1)], Vec::new()).await.unwrap();
        assert_eq!(total(&catalog).await, events + 1, "{name}");
        if rules > 0 {
            let before = catalog.revision().await.unwrap();
            let first = catalog.rules(&home()).await.unwrap()[0].id;
            catalog.delete_rule(&home(), first, &admin()).await.unwrap();
            assert!(catalog.revision().await.unwrap() > before, "{name}");
            let id = catalog.create_rule(&home(), rule_draft(), &admin()).await.unwrap();
            assert!(id > 5, "{name}: the sequence goes on");
        }
        if events > 0 {
            let filter = AuditFilter { hostname: Some("sw1".into()), rule_id: Some(2), ..Default::default() };
            let page = catalog.audit_log(&home(), &filter, ALL).await.unwrap();
            assert_eq!(page.total, page.rows.len() as u64, "{name}");
            let made_up = page.rows[0].entry.event_id;
            let filter = AuditFilter { event_id: Some(made_up), ..Default::default() };
            assert_eq!(catalog.audit_log(&home(), &filter, ALL).await.unwrap().rows[0], page.rows[0], "{name}");
        }
        let other = open(CatalogConfig::Postgres(config(&server, name))).await.unwrap();
        assert_eq!(total(&other).await, events + 1, "{name}: opening again changes nothing");
        // What the original does.
        server.psql_in(
            name,
            "INSERT INTO alert_rules (match_string, match_type, priority, prod_handling, dev_handling, \
             team_assignment, is_active) VALUES ('y', 'contains', 7, 'Page_only', 'Ignore', 'NETO', true) RETURNING id; \
             INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision, \
             forwarded_to_moog, raw_message) VALUES ('2026-11-22T10:00:00Z', 'x', 99999, 'Ignore', false, '{}'); \
             INSERT INTO device_teams (hostname, team_assignment) VALUES ('new', 'NETO'); \
             SELECT id, changed_at, changed_by, operation, old_values FROM config_audit_log ORDER BY changed_at DESC;",
        );
        assert_eq!(total(&catalog).await, events + 2, "{name}");
    }
}

fn rule_draft() -> model::RuleDraft {
    model::RuleDraft {
        match_string: Some("x".into()),
        trap_oid: None,
        syslog_severity: None,
        match_type: model::MatchType::Contains,
        priority: 1,
        prod_handling: model::Handling::new("Page_only"),
        dev_handling: model::Handling::new("Ignore"),
        team_assignment: "NETO".into(),
        is_active: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_adopted_is_refused_in_words_and_left_alone() {
    let server = PostgresServer::start();
    server.psql(&unpartitioned());
    server.psql(ROWS);
    server.psql("CREATE VIEW mine AS SELECT hostname FROM event_audit_log");
    let error = open(CatalogConfig::Postgres(config(&server, server.database()))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("these views hang on it: mine"), "{error}");
    assert_eq!(server.psql("SELECT count(*) FROM mine"), "100");
    server.psql("DROP VIEW mine");
    assert_eq!(total(&catalog(&server).await).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_processes_may_start_at_once() {
    let server = PostgresServer::start();
    server.psql(&format!("{SCHEMA}{PARTITIONS}{ROWS}"));
    let mut opening = JoinSet::new();
    for _ in 0..10 {
        let config = PostgresConfig { pool_max: 4, pool_min: 1, ..config(&server, server.database()) };
        opening.spawn(open(CatalogConfig::Postgres(config)));
    }
    let mut catalogs = Vec::new();
    while let Some(opened) = opening.join_next().await {
        catalogs.push(opened.unwrap().unwrap());
    }
    assert_eq!(server.psql("SELECT count(*), count(DISTINCT version) FROM muttd_migrations"), "13|13");
    let batch: Vec<_> = (0..20).map(entry).collect();
    for catalog in &catalogs {
        catalog.record(&home(), batch.clone(), Vec::new()).await.unwrap();
    }
    assert_eq!(total(&catalogs[0]).await, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_another_program_version_is_refused_in_words() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    server.psql("INSERT INTO muttd_migrations (version, name, checksum) VALUES (99, 'later', 'x')");
    let error = open(CatalogConfig::Postgres(config(&server, server.database()))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("newer version of this program"), "{error}");
    server.psql(
        "DELETE FROM muttd_migrations WHERE version = 99; UPDATE muttd_migrations SET checksum = 'y' WHERE version = 2",
    );
    let error = open(CatalogConfig::Postgres(config(&server, server.database()))).await.err().unwrap();
    assert!(error.to_string().contains("another build"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_on_the_schema_works_once_the_owner_has_adopted_it() {
    let server = PostgresServer::start();
    server.psql(&format!("{SCHEMA}{AUDIT}"));
    server.psql(
        "CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    let as_app = PostgresConfig {
        credentials: Credentials::fixed(Some("app".into()), Secret::new("")),
        ..config(&server, server.database())
    };
    let error = open(CatalogConfig::Postgres(as_app.clone())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("needs the owner of the tables"), "{error}");
    drop(catalog(&server).await);
    let app = open(CatalogConfig::Postgres(as_app)).await.unwrap();
    app.create_rule(&home(), rule_draft(), &admin()).await.unwrap();
    let document = DocumentChange { name: "a.yml".into(), text: Some("x".into()), expected: Some(0) };
    app.change_rule_documents(&home(), vec![document], &admin()).await.unwrap();
    assert!(app.detection_revision().await.unwrap() > 0);
    let before = app.fleet_revision().await.unwrap();
    app.create_org(&"acme".parse().unwrap(), "Acme", None, &admin()).await.unwrap();
    let token = NewToken {
        fingerprint: [1; 32],
        label: String::new(),
        host: None,
        legacy: true,
        expires_at: now().plus(std::time::Duration::from_secs(60)),
        uses_max: None,
    };
    let token = app.add_token(&home(), token, &admin()).await.unwrap();
    let enrolment = Enrolment {
        org: home(),
        token,
        id: "agt_00000000000000000000000001".into(),
        key: None,
        facts: HostFacts { hostname: "web-1".into(), ..HostFacts::default() },
        certificate_ends_at: None,
        at: now(),
    };
    assert!(matches!(app.enrol(enrolment).await.unwrap(), Enrolled::New { .. }));
    app.revoke_agent(&home(), "agt_00000000000000000000000001", "", &admin()).await.unwrap();
    app.remove_agent(&home(), "agt_00000000000000000000000001", &admin()).await.unwrap();
    assert!(app.fleet_revision().await.unwrap() >= before + 4);
    app.record(&home(), vec![entry(1), entry(2)], Vec::new()).await.unwrap();
    assert_eq!(server.psql("SELECT DISTINCT tableoid::regclass FROM event_audit_log"), "event_audit_log_2026_11");
    assert_eq!(total(&app).await, 2);
    let later = now().plus(std::time::Duration::from_secs(3_600));
    assert_eq!(app.archive(later, 1).await.unwrap(), 1);
    assert_eq!(app.purge(later, later, 10).await.unwrap().events, 1);
    server.psql("UPDATE event_audit_log_archive SET archived_at = '2021-01-01'");
    assert_eq!(app.purge_archive(later, 10).await.unwrap(), 3, "the old sample and ours");
    assert_eq!(total(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let server = PostgresServer::start();
    server
        .psql_in("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let error = open(CatalogConfig::Postgres(config(&server, "latin"))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("LATIN1"), "{error}");
}

fn as_role(server: &PostgresServer, database: &str, role: &str) -> PostgresConfig {
    PostgresConfig { credentials: Credentials::fixed(Some(role.into()), Secret::new("")), ..config(server, database) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_leaves_everything_as_it_was() {
    let server = PostgresServer::start();
    server.psql(&format!("{}{ROWS}", unpartitioned()));
    server.psql("CREATE TABLE muttd_user_keys (mine TEXT)"); // in the way of a late step
    let error = open(CatalogConfig::Postgres(config(&server, server.database()))).await.err().unwrap();
    assert!(error.to_string().contains("step 5 (users)"), "{error}");
    assert_eq!(server.psql("SELECT count(*) FROM event_audit_log"), "100");
    assert_eq!(server.psql("SELECT to_regclass('muttd_migrations') IS NULL AND to_regclass('alerts') IS NULL"), "t");
    server.psql("DROP TABLE muttd_user_keys");
    assert_eq!(total(&catalog(&server).await).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_indexes_and_triggers_of_the_site_are_kept() {
    let server = PostgresServer::start();
    server.psql(&unpartitioned());
    server.psql(
        "ALTER TABLE event_audit_log ADD site TEXT NOT NULL DEFAULT 'here', ADD ticket_no INTEGER; \
         CREATE INDEX by_site ON event_audit_log (site); CREATE TABLE seen (host TEXT); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO seen VALUES (NEW.hostname); RETURN NULL; END $$; \
         CREATE TRIGGER see AFTER INSERT ON event_audit_log FOR EACH ROW EXECUTE FUNCTION see(); \
         INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision, site, ticket_no) \
         VALUES ('2025-12-24 18:00Z', 'sw1', 1, 'Ignore', 'there', 7)",
    );
    let catalog = catalog(&server).await;
    catalog.record(&home(), vec![entry(1)], Vec::new()).await.unwrap();
    let rows = "SELECT hostname, site, ticket_no FROM event_audit_log ORDER BY id";
    assert_eq!(server.psql(rows), "sw1|there|7\nrouter-1|here|");
    assert_eq!(server.psql("SELECT 'by_site'::regclass, string_agg(host, ' ') FROM seen"), "by_site|sw1 router-1");
    catalog.archive(now(), 10).await.unwrap();
    assert_eq!(server.psql("SELECT hostname, site, ticket_no FROM event_audit_log_archive"), "sw1|there|7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_superuser_adopts_belongs_to_the_owner_of_the_tables() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE site LOGIN; CREATE ROLE app LOGIN");
    for (name, schema) in [("partitioned", SCHEMA.to_owned()), ("flat", unpartitioned())] {
        server.psql_in("postgres", &format!("CREATE DATABASE {name} OWNER site"));
        server.psql_in(name, &format!("SET ROLE site; {schema}{AUDIT}"));
        server.psql_in(
            name,
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app; \
                              GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
        );
        drop(open(CatalogConfig::Postgres(config(&server, name))).await.unwrap());
        let foreign = "SELECT string_agg(name, ' ') FROM (SELECT relname, relowner FROM pg_class \
                           WHERE relnamespace = 'public'::regnamespace \
                       UNION ALL SELECT proname, proowner FROM pg_proc \
                           WHERE pronamespace = 'public'::regnamespace) o (name, owner) \
                       WHERE owner <> 'site'::regrole";
        assert_eq!(server.psql_in(name, foreign), "", "{name}");
        for role in ["site", "app"] {
            let catalog = open(CatalogConfig::Postgres(as_role(&server, name, role))).await.unwrap();
            let number = role.len() as u64;
            catalog.record(&home(), vec![entry(number)], Vec::new()).await.unwrap();
            catalog.create_rule(&home(), rule_draft(), &admin()).await.unwrap();
            catalog.create_user(&home(), role, storage::catalog::users::Role::Viewer, &admin()).await.unwrap();
            let advice = postgres_advice(&as_role(&server, name, role)).await.unwrap();
            assert!(!advice.iter().any(|text| text.contains("lacks")), "{name}, {role}: {advice:?}");
        }
        let lies = server.psql_in(name, "SELECT DISTINCT tableoid::regclass FROM event_audit_log");
        assert_eq!(lies, "event_audit_log_2026_11", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_somebody_else_made_is_counted_all_the_same() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE site LOGIN; CREATE ROLE app LOGIN");
    server.psql_in("postgres", "CREATE DATABASE split OWNER site");
    server.psql_in("split", &format!("SET ROLE site; {SCHEMA}{AUDIT}"));
    server.psql_in(
        "split",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app; \
                             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    drop(open(CatalogConfig::Postgres(as_role(&server, "split", "site"))).await.unwrap());
    let app = open(CatalogConfig::Postgres(as_role(&server, "split", "app"))).await.unwrap();
    for (owner, year) in [("site", 2052), ("mutt_user", 2053)] {
        server.psql_in(
            "split",
            &format!(
                "SET ROLE {owner}; CREATE TABLE event_audit_log_{year}_01 PARTITION OF event_audit_log \
             FOR VALUES FROM ('{year}-01-01Z') TO ('{year}-02-01Z'); \
             INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
             SELECT '{year}-01-05', 'x', 1, 'Ignore' FROM generate_series(1, 7)"
            ),
        );
    }
    assert_eq!(total(&app).await, 14);
    let long_ago = now().minus(std::time::Duration::from_secs(86_400 * 36_500));
    app.purge(long_ago, long_ago, 1).await.unwrap();
    assert_eq!(total(&app).await, 14, "after counting what can be counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_views_on_the_contracts_functions_survive() {
    let server = PostgresServer::start();
    let odd = "CREATE FUNCTION delete_old_archives(years INTEGER) RETURNS INTEGER LANGUAGE sql AS 'SELECT 1'; \
               CREATE VIEW partition_health_summary AS SELECT 1 AS mine;";
    for (name, made) in [("original", format!("{SCHEMA}{AUDIT}")), ("odd", format!("{SCHEMA}{odd}"))] {
        server.create_database(name);
        server.psql_in(name, &made);
        server.psql_in(
            name,
            "DO $$ BEGIN IF to_regrole('reader') IS NULL THEN CREATE ROLE reader; END IF; END $$; \
             GRANT SELECT ON partition_health_summary TO reader; \
             REVOKE EXECUTE ON FUNCTION delete_old_archives FROM PUBLIC; \
             GRANT EXECUTE ON FUNCTION delete_old_archives TO reader; \
             CREATE VIEW theirs AS SELECT * FROM partition_health_summary; \
             CREATE VIEW archived AS SELECT delete_old_archives(1000)",
        );
        let before = server.psql_in(name, "SELECT count(*) FROM theirs");
        let catalog = open(CatalogConfig::Postgres(config(&server, name))).await.unwrap();
        assert_eq!(total(&catalog).await, 0, "{name}");
        server.psql_in(
            name,
            "SET ROLE reader; SELECT partition_name, partition_range, partition_size, \
                              row_count_estimate FROM partition_health_summary",
        );
        let may = "SELECT has_function_privilege('reader', 'delete_old_archives(integer)', 'EXECUTE')";
        assert_eq!(server.psql_in(name, may), "t", "{name}");
        let named = server.psql_in(name, "SELECT delete_old_archives(retention_years => 1000), count(*) FROM archived");
        assert_eq!(named, "0|1", "{name}");
        let theirs = server.psql_in(name, "SELECT count(*) FROM theirs");
        assert_eq!(theirs == before, name == "odd", "{name}: {theirs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_table_gets_no_index_twice() {
    let server = PostgresServer::start();
    server.create_database("adopted");
    server.psql_in("adopted", &format!("{SCHEMA}{AUDIT}{PARTITIONS}"));
    for name in ["adopted", server.database()] {
        drop(open(CatalogConfig::Postgres(config(&server, name))).await.unwrap());
    }
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename IN ('alert_rules', 'config_audit_log', \
                   'event_audit_log', 'event_audit_log_archive') ORDER BY 1";
    assert_eq!(server.psql_in("adopted", indexes), server.psql(indexes));
}
