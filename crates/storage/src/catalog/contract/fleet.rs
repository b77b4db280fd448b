//! Organisations, and tokens for agents.

use super::settings::changes;
use super::{Store, admin, at, home, kind, org};
use crate::catalog::ConfigChangeFilter;
use crate::catalog::fleet::{ENDED_TOKENS_KEPT, NewToken, Org};
use crate::catalog::users::{NewKey, Role};
use model::{ErrorKind, OrgId};

pub fn token(byte: u8) -> NewToken {
    NewToken {
        fingerprint: [byte; 32],
        label: format!("token {byte}"),
        host: None,
        legacy: false,
        expires_at: at(1_000),
        uses_max: None,
    }
}

pub async fn organisations_come_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("fleet orgs").await;
    let ids = async |catalog: &Store| -> Vec<String> {
        catalog.orgs().await.unwrap().iter().map(|org| org.id.to_string()).collect()
    };
    assert_eq!(ids(&catalog).await, ["default"], "it is always there");
    let default = catalog.org(&home()).await.unwrap();
    assert_eq!((default.title.as_str(), default.agents_max, default.disabled), ("", None, false));
    catalog.create_org(&org("globex"), "Globex \"Ltd\" ü", Some(5), &admin(1)).await.unwrap();
    catalog.create_org(&org("acme-2"), "", None, &admin(2)).await.unwrap();
    assert_eq!(kind(catalog.create_org(&org("acme-2"), "x", None, &admin(3)).await), ErrorKind::Conflict);
    assert_eq!(kind(catalog.create_org(&home(), "x", None, &admin(3)).await), ErrorKind::Conflict);
    for (id, title) in [("a_b", ""), ("b", "two\nlines"), ("b", &"x".repeat(201))] {
        let created = catalog.create_org(&org(id), title, None, &admin(3)).await;
        assert_eq!(kind(created), ErrorKind::Invalid, "{id} {title}");
    }
    catalog.change_org(&org("acme-2"), "Acme", Some(7), true, &admin(4)).await.unwrap();
    assert_eq!(kind(catalog.change_org(&org("none"), "", None, false, &admin(4)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.change_org(&home(), "", None, true, &admin(4)).await), ErrorKind::Invalid);
    assert_eq!(kind(catalog.org(&org("none")).await), ErrorKind::NotFound);
    drop(catalog);

    let catalog = open("fleet orgs").await;
    assert_eq!(ids(&catalog).await, ["acme-2", "default", "globex"]);
    let acme = Org { id: org("acme-2"), title: "Acme".into(), created_at: at(2), agents_max: Some(7), disabled: true };
    assert_eq!(catalog.org(&org("acme-2")).await.unwrap(), acme);
    assert_eq!(catalog.org(&org("globex")).await.unwrap().title, "Globex \"Ltd\" ü");
}

pub async fn users_of_a_disabled_organisation_are_nobody(catalog: &Store) {
    catalog.create_org(&org("acme"), "", None, &admin(0)).await.unwrap();
    for (byte, id) in [(1, org("acme")), (2, home())] {
        catalog.create_user(&id, "bob", Role::Admin, &admin(0)).await.unwrap();
        let key = NewKey { fingerprint: [byte; 32], label: String::new(), expires_at: None };
        catalog.add_key(&id, "bob", key, &admin(0)).await.unwrap();
    }
    let logins = async || catalog.key_logins().await.unwrap().into_iter().map(|l| l.org).collect::<Vec<OrgId>>();
    assert_eq!(logins().await.len(), 2);
    catalog.change_org(&org("acme"), "", None, true, &admin(1)).await.unwrap();
    assert_eq!(logins().await, [home()]);
    catalog.change_org(&org("acme"), "", None, false, &admin(2)).await.unwrap();
    assert_eq!(logins().await.len(), 2, "nothing was removed");
}

pub async fn tokens_come_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("fleet tokens").await;
    let bound = NewToken { host: Some("db-1".into()), legacy: true, uses_max: Some(3), ..token(1) };
    let first = catalog.add_token(&home(), bound, &admin(1)).await.unwrap();
    let second = catalog.add_token(&home(), NewToken { label: String::new(), ..token(2) }, &admin(2)).await.unwrap();
    assert!(second > first);
    assert_eq!(kind(catalog.add_token(&home(), token(1), &admin(3)).await), ErrorKind::Conflict);
    assert_eq!(kind(catalog.add_token(&org("none"), token(9), &admin(3)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.tokens(&org("none")).await), ErrorKind::NotFound);
    for bad in [
        NewToken { label: "x".repeat(101), ..token(9) },
        NewToken { host: Some(String::new()), ..token(9) },
        NewToken { host: Some("a\nb".into()), ..token(9) },
        NewToken { host: Some("x".repeat(256)), ..token(9) },
        NewToken { uses_max: Some(0), ..token(9) },
    ] {
        assert_eq!(kind(catalog.add_token(&home(), bad.clone(), &admin(3)).await), ErrorKind::Invalid, "{bad:?}");
    }
    catalog.token_used(first, at(50)).await.unwrap();
    catalog.token_used(first, at(40)).await.unwrap();
    catalog.token_used(first + 99, at(40)).await.unwrap();
    drop(catalog);

    let catalog = open("fleet tokens").await;
    let tokens = catalog.tokens(&home()).await.unwrap();
    let [two, one] = &tokens[..] else { panic!("newest first: {tokens:?}") };
    assert_eq!((two.id, two.label.as_str(), &two.host, two.legacy, two.uses_max), (second, "", &None, false, None));
    assert_eq!((one.id, one.label.as_str(), one.host.as_deref()), (first, "token 1", Some("db-1")));
    assert_eq!((one.created_at, one.created_by.as_str(), one.expires_at), (at(1), "Admin", at(1_000)));
    assert_eq!((one.legacy, one.uses_max, one.uses, one.last_used_at), (true, Some(3), 0, Some(at(50))));
    assert_eq!((one.revoked_at, one.followed_by, &one.org), (None, None, &home()));
    let login = catalog.token_login(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((&login.token, login.fingerprint, login.org_disabled), (one, [1; 32], false));
    assert_eq!(catalog.token_login(&[9; 32]).await.unwrap(), None);
}

pub async fn tokens_are_revoked_and_rotated(catalog: &Store) {
    let bound = NewToken { host: Some("db-1".into()), legacy: true, uses_max: Some(3), ..token(1) };
    let first = catalog.add_token(&home(), bound, &admin(1)).await.unwrap();
    let second = catalog.rotate_token(&home(), first, [2; 32], at(5_000), at(500), &admin(2)).await.unwrap();
    let tokens = catalog.tokens(&home()).await.unwrap();
    let (new, old) = (&tokens[0], &tokens[1]);
    assert_eq!((old.followed_by, old.expires_at, old.revoked_at), (Some(second), at(500), None));
    assert_eq!((new.id, new.label.as_str(), new.host.as_deref()), (second, "token 1", Some("db-1")));
    assert_eq!((new.legacy, new.uses_max, new.uses, new.expires_at), (true, Some(3), 0, at(5_000)));
    let again = catalog.rotate_token(&home(), first, [3; 32], at(5_000), at(500), &admin(3)).await;
    assert_eq!(kind(again), ErrorKind::Conflict, "it was rotated already");
    let third = catalog.rotate_token(&home(), second, [3; 32], at(9_000), at(9_999), &admin(3)).await.unwrap();
    assert_eq!(catalog.tokens(&home()).await.unwrap()[1].expires_at, at(5_000), "an end only comes nearer");
    let same = catalog.rotate_token(&home(), third, [3; 32], at(9_000), at(9_999), &admin(3)).await;
    assert_eq!(kind(same), ErrorKind::Conflict);
    assert_eq!(catalog.tokens(&home()).await.unwrap()[0].followed_by, None, "a refused rotation leaves no trace");

    catalog.revoke_token(&home(), third, &admin(4)).await.unwrap();
    catalog.revoke_token(&home(), third, &admin(5)).await.unwrap();
    assert_eq!(catalog.tokens(&home()).await.unwrap()[0].revoked_at, Some(at(4)), "the first time counts");
    let dead = catalog.rotate_token(&home(), third, [4; 32], at(9_000), at(9_999), &admin(6)).await;
    assert_eq!(kind(dead), ErrorKind::Conflict);
    assert_eq!(catalog.token_login(&[3; 32]).await.unwrap().unwrap().token.revoked_at, Some(at(4)));
}

pub async fn tokens_of_organisations_are_apart(catalog: &Store) {
    let (ours, theirs) = (org("acme"), org("globex"));
    for org in [&ours, &theirs] {
        catalog.create_org(org, "", None, &admin(0)).await.unwrap();
    }
    let id = catalog.add_token(&ours, token(1), &admin(1)).await.unwrap();
    assert!(catalog.tokens(&theirs).await.unwrap().is_empty());
    assert_eq!(kind(catalog.revoke_token(&theirs, id, &admin(2)).await), ErrorKind::NotFound);
    let rotated = catalog.rotate_token(&theirs, id, [2; 32], at(9), at(9), &admin(2)).await;
    assert_eq!(kind(rotated), ErrorKind::NotFound);
    assert_eq!(
        kind(catalog.add_token(&theirs, token(1), &admin(2)).await),
        ErrorKind::Conflict,
        "one token, one owner"
    );
    assert_eq!(catalog.tokens(&ours).await.unwrap()[0].revoked_at, None);
    catalog.change_org(&ours, "", None, true, &admin(3)).await.unwrap();
    assert!(catalog.token_login(&[1; 32]).await.unwrap().unwrap().org_disabled);
    assert_eq!(changes(catalog, &theirs, ConfigChangeFilter::default()).await.len(), 1, "its creation");
}

pub async fn of_ended_tokens_the_newest_are_kept(catalog: &Store) {
    let print = |number: u64| {
        let mut print = [0xaa; 32];
        print[..8].copy_from_slice(&number.to_be_bytes());
        print
    };
    let kept = catalog.add_token(&home(), token(1), &admin(0)).await.unwrap();
    for number in 0..ENDED_TOKENS_KEPT + 20 {
        let short = NewToken { fingerprint: print(number), expires_at: at(10), ..token(0) };
        catalog.add_token(&home(), short, &admin(1)).await.unwrap();
    }
    let last = catalog.add_token(&home(), token(2), &admin(20)).await.unwrap();
    let tokens = catalog.tokens(&home()).await.unwrap();
    assert_eq!(tokens.len() as u64, ENDED_TOKENS_KEPT + 2);
    assert_eq!((tokens[0].id, tokens.last().unwrap().id), (last, kept), "those that count are never dropped");
    assert_eq!(catalog.token_login(&print(0)).await.unwrap(), None);
}

pub async fn changes_of_the_fleet_are_audited_without_fingerprints(catalog: &Store) {
    let (rules, mut before) = (catalog.revision().await.unwrap(), catalog.fleet_revision().await.unwrap());
    let mut moved = async || {
        let now = catalog.fleet_revision().await.unwrap();
        std::mem::replace(&mut before, now) < now
    };
    let acme = org("acme");
    catalog.create_org(&acme, "Acme", None, &admin(1)).await.unwrap();
    assert!(moved().await);
    catalog.change_org(&acme, "Acme", Some(9), false, &admin(2)).await.unwrap();
    assert!(moved().await);
    let id = catalog.add_token(&acme, token(7), &admin(3)).await.unwrap();
    assert!(moved().await);
    let next = catalog.rotate_token(&acme, id, [8; 32], at(2_000), at(500), &admin(4)).await.unwrap();
    assert!(moved().await);
    catalog.revoke_token(&acme, next, &admin(5)).await.unwrap();
    assert!(moved().await);
    catalog.revoke_token(&acme, next, &admin(6)).await.unwrap();
    let _ = catalog.create_org(&acme, "Again", None, &admin(6)).await;
    let mut rows = changes(catalog, &acme, ConfigChangeFilter::default()).await;
    rows.reverse();
    let seen: Vec<_> = rows.iter().map(|r| (r.operation.as_str(), r.table_name.as_str(), r.record_id)).collect();
    let expected = [
        ("CREATE", "orgs", 0),
        ("UPDATE", "orgs", 0),
        ("CREATE", "agent_tokens", id),
        ("CREATE", "agent_tokens", next),
        ("UPDATE", "agent_tokens", id),
        ("UPDATE", "agent_tokens", next),
    ];
    assert_eq!(seen, expected);
    let json = |text: &Option<String>| -> serde_json::Value { serde_json::from_str(text.as_deref().unwrap()).unwrap() };
    let acme_is = |max| serde_json::json!({"id": "acme", "title": "Acme", "agents_max": max, "disabled": false});
    assert_eq!((json(&rows[1].old_values), json(&rows[1].new_values)), (acme_is(None), acme_is(Some(9))));
    let revoked = serde_json::json!({
        "id": next, "label": "token 7", "host": null, "legacy": false, "expires_at": at(2_000).rfc3339(),
        "uses_max": null, "revoked": true, "followed_by": null,
    });
    assert_eq!(json(&rows[5].new_values), revoked);
    assert_eq!(catalog.revision().await.unwrap(), rules, "detection has nothing to reload");
}
