//! The embedded catalog: the contract, and what files and versions can do to it.

use model::{AlertState, ErrorKind, OrgId, Timestamp};
use std::path::Path;
use std::sync::Arc;
use storage::StorageResult;
use storage::catalog::{Actor, AuditFilter, Catalog, CatalogConfig, ConfigChangeFilter, PageRequest, contract, open};

async fn catalog(dir: &Path) -> StorageResult<Arc<dyn Catalog>> {
    open(CatalogConfig::Sqlite { file: dir.join("catalog.db") }).await
}

const PAGE: PageRequest = PageRequest { page: 1, limit: 50 };

fn admin() -> Actor {
    Actor { name: "admin".into(), reason: None, correlation_id: "c".into(), at: Timestamp::from_secs(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::run(async |name| catalog(&dir.path().join(name)).await.unwrap()).await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    drop(catalog(dir.path()).await.unwrap());
    let connection = rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = catalog(dir.path()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("newer version of this program"), "{error}");
}

#[tokio::test]
async fn a_file_of_version_one_still_loads() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = include_str!("../migrations/sqlite/fixtures/catalog_v1.sql");
    rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap().execute_batch(fixture).unwrap();
    let (catalog, org) = (catalog(dir.path()).await.unwrap(), OrgId::default());
    assert_eq!(catalog.revision().await.unwrap(), 7);
    assert_eq!(catalog.rules(&org).await.unwrap()[0].draft.team_assignment, "NetOps");
    assert_eq!(catalog.dev_hosts(&org).await.unwrap(), ["dev-router1"]);
    assert_eq!(catalog.teams(&org).await.unwrap().len(), 1);
    let log = catalog.audit_log(&org, &AuditFilter::default(), PAGE).await.unwrap();
    assert_eq!((log.total, log.rows[0].entry.event_id.counter()), (1, 255));
    assert_eq!(catalog.config_changes(&org, &ConfigChangeFilter::default(), PAGE).await.unwrap().total, 1);
    let pending = catalog.pending_alerts(None, 10).await.unwrap();
    assert_eq!(catalog.alert(&org, pending[0].id).await.unwrap().state, AlertState::Pending);
    catalog.add_dev_host(&org, "another", &admin()).await.unwrap();
    assert_eq!(catalog.revision().await.unwrap(), 8);
    assert!(catalog.users(&org).await.unwrap().is_empty(), "what came later is there");
    assert!(catalog.rule_documents(&org).await.unwrap().is_empty());
    assert_eq!(catalog.detection_revision().await.unwrap(), 0);
    assert_eq!(catalog.orgs().await.unwrap()[0].id, org);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("catalog.db"), vec![b'x'; 5_000]).unwrap();
    let error = catalog(dir.path()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("catalog.db"), "{error}");
}

#[tokio::test]
async fn two_processes_see_each_others_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (catalog(dir.path()).await.unwrap(), catalog(dir.path()).await.unwrap());
    let before = two.revision().await.unwrap();
    one.add_dev_host(&OrgId::default(), "h", &admin()).await.unwrap();
    assert!(two.revision().await.unwrap() > before);
    two.remove_dev_host(&OrgId::default(), "h", &admin()).await.unwrap();
    assert!(one.dev_hosts(&OrgId::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let running = catalog(dir.path()).await.unwrap();
    running.add_dev_host(&OrgId::default(), "h", &admin()).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(catalog(copy.path()).await.unwrap().dev_hosts(&OrgId::default()).await.unwrap(), ["h"]);
}
