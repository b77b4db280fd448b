use super::{Answer, Api, KEY, api, api_with, with_key};
use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use std::sync::Arc;

fn browser(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("accept", "text/html,*/*").header("host", "mutt.example:8090")
}

impl Api {
    async fn log_in(&self, key: &str, next: &str) -> Answer {
        let request = browser("POST", "/login")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", "http://mutt.example:8090")
            .body(Body::from(format!("key={key}&next={next}")))
            .unwrap();
        self.send(request).await
    }

    async fn page(&self, cookie: &str, path: &str) -> Answer {
        self.send(browser("GET", path).header("cookie", cookie).body(Body::empty()).unwrap()).await
    }
}

fn cookie_of(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_is_led_to_the_form_and_back_and_never_sends_the_key_again() {
    let api = api().await;
    let away = api.page("", "/audit?user=a%20b").await;
    assert_eq!((away.status, away.header("location")), (303, "/login?next=%2Faudit%3Fuser%3Da%2520b"));
    let form = api.send(browser("GET", away.header("location")).body(Body::empty()).unwrap()).await;
    assert!(
        form.text.contains("value=\"/audit?user=a%20b\"") && form.text.contains("type=\"password\""),
        "{}",
        form.text
    );
    let logged_in = api.log_in(KEY, "%2Faudit%3Fuser%3Da%2520b").await;
    assert_eq!((logged_in.status, logged_in.header("location")), (303, "/audit?user=a%20b"));
    let set = logged_in.header("set-cookie");
    for attribute in ["mutt_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(KEY), "{set}");
    let cookie = cookie_of(&logged_in);
    assert_eq!(cookie.len(), "mutt_session=".len() + 64);
    let dashboard = api.page(&cookie, "/").await;
    assert_eq!(dashboard.status, 200);
    assert!(dashboard.header("content-type").starts_with("text/html"));
    assert!(!dashboard.text.contains(KEY));
    let lost = api.page(&cookie, "/nothing").await;
    assert!(lost.status == 404 && lost.text.contains("no such page"), "{}", lost.text);
    api.page("mutt_session=guess", "/nothing").await.refuses(401, "Unauthorized");
    // A cookie is not a key: no other site can call the API with it.
    api.page(&cookie, "/api/v2/rules").await.refuses(401, "Unauthorized");
    let out = api.send(browser("POST", "/logout").header("cookie", &cookie).body(Body::empty()).unwrap()).await;
    assert_eq!((out.status, out.header("location")), (303, "/login"));
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(api.page(&cookie, "/").await.status, 303, "the session is over, whatever the browser keeps");
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_it() {
    let api = api_with(|state| state.options.tls = true).await;
    assert!(api.log_in(KEY, "").await.header("set-cookie").ends_with("; Secure"));
}

#[tokio::test]
async fn programs_get_what_the_contract_says() {
    let api = api().await;
    let request = Request::builder().uri("/").body(Body::empty()).unwrap();
    api.send(request).await.refuses(401, "Unauthorized");
    let page = api.get("/").await;
    assert!(page.status == 200 && page.text.starts_with("<!doctype html>"), "a key in the header will do too");
    let request = browser("GET", "/").header("x-api-key", "wrong").body(Body::empty()).unwrap();
    api.send(request).await.refuses(401, "Unauthorized");
}

#[tokio::test]
async fn a_wrong_key_or_a_foreign_form_opens_nothing() {
    let api = api().await;
    let wrong = api.log_in("guess", "").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("role=\"alert\"") && wrong.headers.get("set-cookie").is_none(), "{}", wrong.text);
    for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        for path in ["/login", "/logout"] {
            let request = browser("POST", path).header(name, value).body(Body::from(format!("key={KEY}"))).unwrap();
            let answer = api.send(request).await;
            assert_eq!(answer.status, 403, "{path} {name}: {value}");
            assert!(answer.headers.get("set-cookie").is_none());
        }
    }
    let large = browser("POST", "/login").body(Body::from(format!("key={}", "x".repeat(20_000)))).unwrap();
    assert_eq!(api.send(large).await.status, 413);
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let api = api().await;
    let key = api.user("bob", "viewer").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    let page = api.page(&cookie, "/").await;
    assert!(page.status == 200 && page.text.contains("bob") && page.text.contains("viewer"), "{}", page.text);
    api.delete("/api/v2/users/bob/keys/1").await.is(200);
    assert_eq!(api.page(&cookie, "/").await.status, 303);
}

#[tokio::test]
async fn nothing_foreign_or_inline_is_on_a_page() {
    let api = api().await;
    for path in ["/", "/audit", "/login"] {
        let page = api.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"));
        assert_eq!((page.header("x-content-type-options"), page.header("cache-control")), ("nosniff", "no-store"));
        for foreign in
            ["http://", "https://", "//cdn", " style=", " onclick", " onload", "javascript:", "<script>", "<style"]
        {
            assert!(!page.text.contains(foreign), "{path}: {foreign}");
        }
        for asset in page.text.split('"').filter(|text| text.starts_with("/assets/")) {
            let answer = api.send(Request::builder().uri(asset).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 200, "{asset} needs no key");
        }
    }
    assert!(api.get("/").await.text.contains("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>"));
}

#[tokio::test]
async fn the_dashboard_shows_rates_queues_alerts_breakers_and_health() {
    let api = api().await;
    api.state.health.ok("queue");
    api.state.health.failed("channel", "refused <b>");
    let text = api.get("/").await.text;
    for part in [
        "Current rate",
        "15-minute average",
        "1-hour average",
        "events/min",
        "dlq-moog",
        "Delivered",
        "Dead",
        "closed: delivering",
        "not working",
        "refused &lt;b&gt;",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches("<circle").count(), 24);
}

#[tokio::test]
async fn the_dashboard_says_what_it_cannot_show() {
    let api = api_with(|state| state.coordination = std::sync::Arc::new(super::metrics::Down)).await;
    let page = api.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("The rates cannot be read now") && page.text.contains("cannot be read now</span>"));
    assert!(page.text.contains("dlq-moog") && !page.text.contains("s3cret"));
}

#[tokio::test]
async fn the_audit_viewer_filters_pages_and_shows_old_and_new() {
    let api = api().await;
    let rule = json!({
        "match_string": "<script>alert(1)</script>", "prod_handling": "Ignore", "dev_handling": "Ignore",
        "team_assignment": "NETO",
    });
    api.post("/api/v2/rules", rule).await.is(201);
    api.put("/api/v2/rules/1", json!({ "priority": 5, "reason": "before <others>" })).await.is(200);
    for n in 0..45 {
        api.post("/api/v2/dev-hosts", json!({ "hostname": format!("lab-{n}") })).await.is(201);
    }
    let first = api.get("/audit").await.text;
    assert!(first.contains("Page 1 of 3, 47 changes") && first.matches("<time").count() == 20, "{first}");
    assert!(first.contains("href=\"/audit?page=2\""));
    let rules = api.get("/audit?table=alert_rules&operation=update&record_id=1").await.text;
    assert!(rules.contains("Page 1 of 1, 1 change<"), "{rules}");
    assert!(rules.contains("<b>priority</b> <del>100</del>") && rules.contains("<ins>5</ins>"), "{rules}");
    assert!(rules.contains("before &lt;others&gt;") && rules.contains("<option selected>UPDATE"), "{rules}");
    let created = api.get("/audit?table=alert_rules&operation=CREATE").await.text;
    assert!(created.contains("&lt;script&gt;alert(1)") && !created.contains("<script>alert"), "{created}");
    let named = api.get("/audit?user=api%5Fkey&from=2026-01-01&to=2026-01-01+12:30&page=3").await.text;
    assert!(named.contains("Page 3 of 3") && named.contains("user=api_key&amp;from=2026-01-01"), "{named}");
    assert!(api.get("/audit?user=nobody").await.text.contains("No change matches"));
    for (query, says) in [
        ("from=yesterday", "from: `yesterday`"),
        ("page=0", "page"),
        ("record_id=%22%3E", "record_id"),
        ("from=2026-02-01&to=2026-01-01", "to: it is before from"),
    ] {
        let answer = api.get(&format!("/audit?{query}")).await;
        assert!(
            answer.status == 400 && answer.text.contains(says) && answer.text.contains("<form"),
            "{query}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn many_wrong_keys_in_the_form_have_to_wait_too() {
    let api = api().await;
    let peer: std::net::SocketAddr = "192.0.2.9:1".parse().unwrap();
    let attempt = async || {
        let request =
            browser("POST", "/login").extension(runtime::http::Peer(peer)).body(Body::from("key=guess")).unwrap();
        api.send(request).await
    };
    for _ in 0..20 {
        assert_eq!(attempt().await.status, 401);
    }
    let limited = attempt().await;
    assert!(limited.status == 429 && limited.headers.contains_key("retry-after"), "{}", limited.text);
    let request = with_key("GET", "/").body(Body::empty()).unwrap();
    assert_eq!(api.send(request).await.status, 200);
}

#[tokio::test]
async fn an_incident_is_shown_and_moved_by_its_buttons_from_this_site_only() {
    let api = api().await;
    let detection = model::Detection { title: "<b>Login</b> guessed".into(), ..Default::default() };
    let found = testkit::builders::alert().host("<i>web</i>").detection(detection).build();
    let planned = vec![api.state.planner.plan(found)];
    api.state.catalog.record_planned(&api.state.org, Vec::new(), planned).await.unwrap();
    let key = api.user("bob", "operator").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    let list = api.page(&cookie, "/incidents").await;
    assert!(list.status == 200 && list.text.contains("href=\"/incidents/1\""), "{}", list.text);
    assert!(list.text.contains("&lt;b&gt;Login&lt;/b&gt; guessed") && !list.text.contains("<i>web"), "{}", list.text);
    let one = api.page(&cookie, "/incidents/1").await;
    assert!(one.text.contains("value=\"acknowledge\"") && one.text.contains("value=\"take\""), "{}", one.text);
    let push = async |cookie: &str, origin: Option<&str>, form: &str| {
        let mut request = browser("POST", "/incidents/1").header("cookie", cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        api.send(request.body(Body::from(form.to_owned())).unwrap()).await
    };
    let status = async || api.get("/api/v2/incidents/1").await.is(200)["status"].as_str().unwrap().to_owned();
    let here = Some("http://mutt.example:8090");
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let answer = push(&cookie, origin, "action=acknowledge").await;
        assert!(matches!(answer.status, 303 | 401 | 403), "{origin:?}: {}", answer.status);
        assert_eq!(status().await, "ACTIVE", "{origin:?}");
    }
    assert_eq!(push("", here, "action=acknowledge").await.header("location"), "/login?next=%2Fincidents%2F1");
    let done = push(&cookie, here, "action=acknowledge&comment=I+look").await;
    assert_eq!((done.status, done.header("location")), (303, "/incidents/1"));
    assert_eq!(status().await, "ACKNOWLEDGED");
    push(&cookie, here, "action=take").await;
    push(&cookie, here, "action=resolve&comment=").await;
    let one = api.page(&cookie, "/incidents/1").await;
    assert!(one.text.contains("I look") && one.text.contains("value=\"reopen\""), "{}", one.text);
    let refused = push(&cookie, here, "action=acknowledge").await;
    assert!(refused.status == 409 && refused.text.contains("role=\"alert\""), "{}", refused.text);
    assert_eq!(push(&cookie, here, "action=shout").await.status, 400);
    let shown = api.get("/api/v2/incidents/1").await.is(200);
    assert_eq!((&shown["assignee"], &shown["acknowledged_by"]), (&json!("bob"), &json!("bob")));

    let key = api.user("vera", "viewer").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    assert!(!api.page(&cookie, "/incidents/1").await.text.contains("name=\"action\""), "a viewer has no buttons");
    assert_eq!(push(&cookie, here, "action=reopen").await.status, 403);
    assert_eq!(status().await, "RESOLVED");
    assert_eq!(api.page(&cookie, "/incidents/99").await.status, 404);
}

#[tokio::test]
async fn rules_are_found_and_one_is_switched_by_its_form_from_this_site_only() {
    let api = super::detection::api().await;
    let own = "title: <b>Bob</b> logs in\nname: bob/1\nlogsource: {product: linux, service: sshd}\n\
               detection: {s: {User: '<script>'}, condition: s}\n";
    api.put_document("a.yml", "", own).await.is(200);
    let key = api.user("otto", "operator").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    let list = api.page(&cookie, "/rules").await;
    assert!(list.status == 200 && list.text.contains("href=\"/rules/bob%2F1\""), "{}", list.text);
    assert!(list.text.contains("&lt;b&gt;Bob&lt;/b&gt;") && list.text.contains("3 in all"), "{}", list.text);
    let found = api.page(&cookie, "/rules?text=bob&state=on&page=1").await;
    assert!(found.text.contains("1 in all") && found.text.contains("value=\"bob\""), "{}", found.text);
    assert_eq!(api.page(&cookie, "/rules?state=maybe").await.status, 400);
    let one = api.page(&cookie, "/rules/bob%2F1").await;
    assert!(one.status == 200 && one.text.contains("User is &quot;&lt;script&gt;&quot;"), "{}", one.text);
    assert!(!one.text.contains("<script>") && one.text.contains("name=\"state\""), "{}", one.text);
    let push = async |cookie: &str, origin: Option<&str>, form: &str| {
        let mut request = browser("POST", "/rules/bob%2F1").header("cookie", cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        api.send(request.body(Body::from(form.to_owned())).unwrap()).await
    };
    let state = async || api.get("/api/v2/detection/rules/bob%2F1").await.is(200)["state"].as_str().unwrap().to_owned();
    let here = Some("http://mutt.example:8090");
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let answer = push(&cookie, origin, "state=off").await;
        assert!(matches!(answer.status, 303 | 401 | 403), "{origin:?}: {}", answer.status);
        assert_eq!(state().await, "on", "{origin:?}");
    }
    let done = push(&cookie, here, "state=dry-run&level=low&team=SOC&reason=we+count").await;
    assert_eq!((done.status, done.header("location"), &*state().await), (303, "/rules/bob%2F1", "dry-run"));
    let row = &api.get("/api/v2/audit?changed_by=otto").await.is(200)["logs"][0];
    assert_eq!((&row["reason"], &row["changed_by"]), (&json!("we count"), &json!("otto")));
    assert_eq!(push(&cookie, here, "state=default&level=default&team=").await.status, 303);
    assert_eq!(state().await, "on");
    let refused = push(&cookie, here, "state=loud").await;
    assert!(refused.status == 400 && refused.text.contains("role=\"alert\""), "{}", refused.text);

    let key = api.user("vera", "viewer").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    let one = api.page(&cookie, "/rules/bob%2F1").await;
    assert!(one.status == 200 && !one.text.contains("name=\"state\""), "a viewer has no form");
    assert_eq!(push(&cookie, here, "state=off").await.status, 403);
    assert_eq!(api.page(&cookie, "/rules/nothing").await.status, 404);
    assert_eq!(api.page("", "/rules/bob%2F1").await.header("location"), "/login?next=%2Frules%2Fbob%252F1");
}

#[tokio::test]
async fn agents_are_found_and_one_is_thrown_out_by_its_form_from_this_site_only() {
    let api = api().await;
    api.enrolled("default", &[(1, "<i>web</i>"), (2, "db-1")]).await;
    let said = r#"{"lag_ms":5000,"spool_records":7,"dropped":{"<b>file</b>":3},"collectors":{"audit":"<script>no"}}"#;
    api.seen(1, 10, said).await;
    let key = api.user("otto", "operator").await;
    let cookie = cookie_of(&api.log_in(&key, "%2Fagents").await);
    let list = api.page(&cookie, "/agents").await;
    let one = format!("/agents/{}", super::agents::agent_id(1));
    assert!(list.status == 200 && list.text.contains(&format!("href=\"{one}\"")), "{}", list.text);
    assert!(list.text.contains("&lt;i&gt;web&lt;/i&gt;") && !list.text.contains("<i>web"), "{}", list.text);
    for part in ["5 s", "2.0.0", "192.0.2.7", "2 in all", "online</span> 1", "pending</span> 1", "2026-01-01 12:00:10"]
    {
        assert!(list.text.contains(part), "{part}: {}", list.text);
    }
    assert!(!list.text.contains("Add agent"), "only who may make a token");
    let found = api.page(&cookie, "/agents?host=DB&state=pending").await;
    assert!(found.text.contains("1 in all") && found.text.contains("value=\"DB\""), "{}", found.text);
    assert_eq!(api.page(&cookie, "/agents?state=maybe").await.status, 400);
    let shown = api.page(&cookie, &one).await;
    assert!(
        shown.text.contains("&lt;script&gt;no") && shown.text.contains("&lt;b&gt;file&lt;/b&gt;"),
        "{}",
        shown.text
    );
    assert!(shown.text.contains("value=\"revoke\"") && !shown.text.contains("value=\"remove\""), "{}", shown.text);

    let push = async |cookie: &str, path: &str, origin: Option<&str>, form: &str| {
        let mut request = browser("POST", path).header("cookie", cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        api.send(request.body(Body::from(form.to_owned())).unwrap()).await
    };
    let path = format!("/api/v2{one}");
    let state = async || api.get(&path).await.is(200)["state"].as_str().unwrap().to_owned();
    let here = Some("http://mutt.example:8090");
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let answer = push(&cookie, &one, origin, "action=revoke").await;
        assert!(matches!(answer.status, 303 | 401 | 403), "{origin:?}: {}", answer.status);
        let made = push(&cookie, "/agents", origin, "host=x").await;
        assert!(matches!(made.status, 303 | 401 | 403), "{origin:?}: {}", made.status);
        assert_eq!(state().await, "online", "{origin:?}");
    }
    let refused = push(&cookie, &one, here, "action=remove").await;
    assert!(refused.status == 409 && refused.text.contains("role=\"alert\""), "{}", refused.text);
    let done = push(&cookie, &one, here, "action=revoke&reason=it+was+stolen").await;
    assert_eq!((done.status, done.header("location"), &*state().await), (303, &*one, "revoked"));
    assert!(api.page(&cookie, &one).await.text.contains("it was stolen"));
    assert_eq!(push(&cookie, "/agents", here, "host=x").await.status, 403, "an operator makes no token");
    let removed = push(&cookie, &one, here, "action=remove").await;
    assert_eq!((removed.status, removed.header("location")), (303, "/agents"));
    assert_eq!(api.page(&cookie, &one).await.status, 404);
    assert_eq!(
        api.page("", &one).await.header("location"),
        format!("/login?next=%2Fagents%2F{}", super::agents::agent_id(1))
    );

    let key = api.user("vera", "viewer").await;
    let cookie = cookie_of(&api.log_in(&key, "").await);
    let db = format!("/agents/{}", super::agents::agent_id(2));
    assert!(!api.page(&cookie, &db).await.text.contains("name=\"action\""), "a viewer has no buttons");
    assert_eq!(push(&cookie, &db, here, "action=revoke").await.status, 403);
}

#[tokio::test]
async fn a_token_for_an_agent_is_on_one_answer_only() {
    let api = api_with(|state| state.agent_gate.token_suffix = Arc::new(|| Ok(Some("ab".repeat(16))))).await;
    let cookie = cookie_of(&api.log_in(KEY, "").await);
    assert!(api.page(&cookie, "/agents").await.text.contains("Add agent"));
    let make = async |form: &str| {
        let request = browser("POST", "/agents").header("cookie", &cookie).header("origin", "http://mutt.example:8090");
        api.send(request.body(Body::from(form.to_owned())).unwrap()).await
    };
    let made = make("host=web-1&label=rack+7&uses=1").await;
    assert_eq!((made.status, made.header("cache-control")), (200, "no-store"));
    let at = made.text.find("sm_default_").unwrap();
    let token = &made.text[at..at + made.text[at..].find('&').unwrap()];
    assert!(token.ends_with(&format!(".{}", "ab".repeat(16))), "{token}");
    assert!(made.text.contains("SM_INGEST_URL=&#39;mutt.example:9002&#39;"), "{}", made.text);
    assert!(made.text.contains("data-copy=\"command\""), "{}", made.text);
    let login = api.state.catalog.token_login(&server::agent_tokens::fingerprint(token)).await.unwrap().unwrap();
    assert_eq!((login.token.host.as_deref(), login.token.uses_max), (Some("web-1"), Some(1)));
    assert!(!api.page(&cookie, "/agents").await.text.contains(token));
    assert_eq!(make("uses=0").await.status, 400);
    assert_eq!(make(&format!("label={}", "x".repeat(101))).await.status, 400);
    let script = api.page("", "/assets/copy.js").await;
    assert!(script.status == 200 && script.header("content-type").starts_with("text/javascript"));
}

#[tokio::test]
async fn users_of_another_organisation_have_the_page_of_their_agents() {
    let api = api().await;
    api.org("acme").await;
    api.enrolled("default", &[(1, "ours-1")]).await;
    api.enrolled("acme", &[(2, "theirs-1")]).await;
    let key = api.user_of("acme", "bob", "admin").await;
    let logged_in = api.log_in(&key, "").await;
    assert_eq!(logged_in.header("location"), "/agents", "the dashboard is not theirs");
    let cookie = cookie_of(&logged_in);
    let list = api.page(&cookie, "/agents").await;
    assert!(list.text.contains("theirs-1") && !list.text.contains("ours-1"), "{}", list.text);
    assert!(!list.text.contains("href=\"/rules\""), "{}", list.text);
    for path in ["/", "/audit", "/incidents", "/rules"] {
        assert_eq!(api.page(&cookie, path).await.status, 403, "{path}");
    }
    assert_eq!(api.page(&cookie, &format!("/agents/{}", super::agents::agent_id(1))).await.status, 404);

    let cookie = cookie_of(&api.log_in(KEY, "").await);
    let theirs = api.page(&cookie, "/agents?org=acme").await;
    let link = format!("href=\"/agents/{}?org=acme\"", super::agents::agent_id(2));
    assert!(theirs.text.contains(&link), "{}", theirs.text);
    let request =
        browser("POST", "/agents?org=acme").header("cookie", &cookie).header("origin", "http://mutt.example:8090");
    let made = api.send(request.body(Body::from("host=x")).unwrap()).await;
    assert!(made.text.contains("sm_acme_"), "{}", made.text);
}
