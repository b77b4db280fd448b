//! Users, their keys, and the audit rows of both.

use super::settings::changes;
use super::{Store, admin, at, home, kind, org};
use crate::catalog::ConfigChangeFilter;
use crate::catalog::users::{KEYS_MAX, NewKey, REVOKED_KEYS_KEPT, Role};
use model::ErrorKind;

fn key(byte: u8) -> NewKey {
    NewKey { fingerprint: [byte; 32], label: format!("key {byte}"), expires_at: Some(at(1_000)) }
}

pub async fn users_and_keys_come_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("users").await;
    catalog.create_user(&home(), "zoe", Role::Viewer, &admin(1)).await.unwrap();
    catalog.create_user(&home(), "Adam", Role::Admin, &admin(2)).await.unwrap();
    catalog.create_user(&home(), "bob", Role::Operator, &admin(3)).await.unwrap();
    assert_eq!(kind(catalog.create_user(&home(), "bob", Role::Viewer, &admin(3)).await), ErrorKind::Conflict);
    for bad in ["", "a b", "a/b", &"x".repeat(65)] {
        assert_eq!(kind(catalog.create_user(&home(), bad, Role::Viewer, &admin(3)).await), ErrorKind::Invalid);
    }
    let first = catalog.add_key(&home(), "bob", key(1), &admin(4)).await.unwrap();
    let plain = NewKey { fingerprint: [2; 32], label: String::new(), expires_at: None };
    let second = catalog.add_key(&home(), "bob", plain, &admin(5)).await.unwrap();
    assert!(second > first);
    assert_eq!(kind(catalog.add_key(&home(), "zoe", key(1), &admin(6)).await), ErrorKind::Conflict);
    assert_eq!(kind(catalog.add_key(&home(), "nobody", key(9), &admin(6)).await), ErrorKind::NotFound);
    let long = NewKey { label: "x".repeat(101), ..key(9) };
    assert_eq!(kind(catalog.add_key(&home(), "bob", long, &admin(6)).await), ErrorKind::Invalid);
    drop(catalog);

    let catalog = open("users").await;
    let users = catalog.users(&home()).await.unwrap();
    let names: Vec<_> = users.iter().map(|u| (u.name.as_str(), u.role, u.keys.len())).collect();
    assert_eq!(names, [("Adam", Role::Admin, 0), ("bob", Role::Operator, 2), ("zoe", Role::Viewer, 0)]);
    let bob = catalog.user(&home(), "bob").await.unwrap();
    assert_eq!((bob.created_at, &bob.keys), (at(3), &users[1].keys));
    let (one, two) = (&bob.keys[0], &bob.keys[1]);
    assert_eq!((one.id, one.label.as_str(), one.created_at, one.expires_at), (first, "key 1", at(4), Some(at(1_000))));
    assert_eq!((two.id, two.label.as_str(), two.expires_at, two.last_used_at), (second, "", None, None));
    assert_eq!(kind(catalog.user(&home(), "BOB").await), ErrorKind::NotFound);
}

pub async fn logins_follow_roles_revocation_and_removal(catalog: &Store) {
    catalog.create_user(&home(), "bob", Role::Viewer, &admin(1)).await.unwrap();
    catalog.create_user(&home(), "eve", Role::Admin, &admin(1)).await.unwrap();
    let first = catalog.add_key(&home(), "bob", key(1), &admin(2)).await.unwrap();
    let second = catalog.add_key(&home(), "bob", key(2), &admin(2)).await.unwrap();
    catalog.add_key(&home(), "eve", key(3), &admin(2)).await.unwrap();
    catalog.set_role(&home(), "bob", Role::Operator, &admin(3)).await.unwrap();
    let logins = async || {
        let mut logins = catalog.key_logins().await.unwrap();
        logins.sort_by_key(|l| l.key);
        logins.into_iter().map(|l| (l.user, l.role, l.fingerprint[0])).collect::<Vec<_>>()
    };
    let bob = |n| ("bob".to_owned(), Role::Operator, n);
    let eve = ("eve".to_owned(), Role::Admin, 3);
    assert_eq!(logins().await, [bob(1), bob(2), eve.clone()]);
    let all = catalog.key_logins().await.unwrap();
    assert!(all.iter().all(|l| l.org == home() && l.expires_at == Some(at(1_000))), "{all:?}");

    catalog.revoke_key(&home(), "bob", first, &admin(4)).await.unwrap();
    catalog.revoke_key(&home(), "bob", first, &admin(5)).await.unwrap();
    assert_eq!(logins().await, [bob(2), eve.clone()]);
    assert_eq!(catalog.user(&home(), "bob").await.unwrap().keys[0].revoked_at, Some(at(4)), "the first time counts");
    assert_eq!(kind(catalog.revoke_key(&home(), "eve", second, &admin(5)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.revoke_key(&home(), "bob", second + 99, &admin(5)).await), ErrorKind::NotFound);

    catalog.keys_used(&[(second, at(50)), (second + 99, at(50))]).await.unwrap();
    catalog.keys_used(&[(second, at(40))]).await.unwrap();
    assert_eq!(catalog.user(&home(), "bob").await.unwrap().keys[1].last_used_at, Some(at(50)));

    catalog.remove_user(&home(), "bob", &admin(6)).await.unwrap();
    assert_eq!(logins().await, [eve]);
    assert_eq!(kind(catalog.remove_user(&home(), "bob", &admin(6)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.set_role(&home(), "bob", Role::Admin, &admin(6)).await), ErrorKind::NotFound);
    catalog.create_user(&home(), "bob", Role::Viewer, &admin(7)).await.unwrap();
    assert!(catalog.user(&home(), "bob").await.unwrap().keys.is_empty(), "a new user of an old name has no old key");
    let again = catalog.add_key(&home(), "bob", key(4), &admin(7)).await.unwrap();
    assert!(again > second, "ids of keys are never given again");
}

pub async fn users_of_organisations_are_apart(catalog: &Store) {
    let (ours, theirs) = (org("acme"), org("globex"));
    for org in [&ours, &theirs] {
        catalog.create_user(org, "bob", Role::Viewer, &admin(0)).await.unwrap();
    }
    let id = catalog.add_key(&ours, "bob", key(1), &admin(0)).await.unwrap();
    assert!(catalog.user(&theirs, "bob").await.unwrap().keys.is_empty());
    assert_eq!(kind(catalog.revoke_key(&theirs, "bob", id, &admin(0)).await), ErrorKind::NotFound);
    catalog.remove_user(&theirs, "bob", &admin(0)).await.unwrap();
    assert_eq!(catalog.key_logins().await.unwrap().iter().filter(|l| l.org == ours).count(), 1);
    assert_eq!(changes(catalog, &theirs, ConfigChangeFilter::default()).await.len(), 2);
}

pub async fn keys_are_bounded(catalog: &Store) {
    catalog.create_user(&home(), "bob", Role::Viewer, &admin(0)).await.unwrap();
    let mut number = 0u8;
    for _ in 0..2 {
        let mut ids = Vec::new();
        for _ in 0..KEYS_MAX {
            number += 1;
            ids.push(catalog.add_key(&home(), "bob", key(number), &admin(0)).await.unwrap());
        }
        assert_eq!(kind(catalog.add_key(&home(), "bob", key(200), &admin(0)).await), ErrorKind::Invalid);
        for id in ids {
            catalog.revoke_key(&home(), "bob", id, &admin(1)).await.unwrap();
        }
    }
    catalog.add_key(&home(), "bob", key(201), &admin(0)).await.unwrap();
    let keys = catalog.user(&home(), "bob").await.unwrap().keys;
    assert_eq!(keys.len() as u64, REVOKED_KEYS_KEPT + 1, "the oldest revoked ones went");
}

pub async fn changes_of_users_and_keys_are_audited_without_secrets(catalog: &Store) {
    let revision = catalog.revision().await.unwrap();
    catalog.create_user(&home(), "bob", Role::Viewer, &admin(1)).await.unwrap();
    catalog.set_role(&home(), "bob", Role::Admin, &admin(2)).await.unwrap();
    let id = catalog.add_key(&home(), "bob", key(7), &admin(3)).await.unwrap();
    catalog.revoke_key(&home(), "bob", id, &admin(4)).await.unwrap();
    catalog.revoke_key(&home(), "bob", id, &admin(5)).await.unwrap();
    catalog.remove_user(&home(), "bob", &admin(6)).await.unwrap();
    let _ = catalog.remove_user(&home(), "bob", &admin(7)).await;
    let mut rows = changes(catalog, &home(), ConfigChangeFilter::default()).await;
    rows.reverse();
    let seen: Vec<_> = rows.iter().map(|r| (r.operation.as_str(), r.table_name.as_str(), r.record_id)).collect();
    let expected = [
        ("CREATE", "users", 0),
        ("UPDATE", "users", 0),
        ("CREATE", "user_keys", id),
        ("UPDATE", "user_keys", id),
        ("DELETE", "users", 0),
    ];
    assert_eq!(seen, expected);
    let json = |text: &Option<String>| -> serde_json::Value { serde_json::from_str(text.as_deref().unwrap()).unwrap() };
    assert_eq!(json(&rows[1].old_values), serde_json::json!({"name": "bob", "role": "viewer"}));
    assert_eq!(json(&rows[1].new_values), serde_json::json!({"name": "bob", "role": "admin"}));
    let key = |revoked| {
        serde_json::json!({
            "id": id, "user": "bob", "label": "key 7", "expires_at": at(1_000).rfc3339(), "revoked": revoked,
        })
    };
    assert_eq!((json(&rows[3].old_values), json(&rows[3].new_values)), (key(false), key(true)));
    assert_eq!(catalog.revision().await.unwrap(), revision, "detection has nothing to reload");
}
