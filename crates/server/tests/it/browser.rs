//! The pages in a real browser: logging in, what scripts of others can do (nothing), the refresh,
//! keyboard, contrast and labels, narrow and dark screens.

use crate::support::{TestServer, event};
use model::{OrgId, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use storage::catalog::fleet::{Enrolled, Enrolment, HostFacts, NewToken, Sighting};
use storage::catalog::{Actor, Catalog};
use testkit::servers::{Chromium, axe};

const ATTACK: &str = "<img src=x onerror=\"document.title='owned'\">";

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_work_in_a_browser() {
    let server = TestServer::start(&[]).await;
    for n in 0..30 {
        server.send(&event(&format!("sw{n}"), "link down")).await;
    }
    let rule = json!({
        "match_string": ATTACK, "prod_handling": "Ignore", "dev_handling": "Ignore", "team_assignment": ATTACK,
    });
    let id = server.rule_with(rule).await;
    let change = json!({ "priority": 5, "reason": ATTACK });
    assert_eq!(server.api("PUT", &format!("/api/v2/rules/{id}"), Some(change)).await.0, 200);
    for n in 0..25 {
        server.api("POST", "/api/v2/dev-hosts", Some(json!({ "hostname": format!("{ATTACK}{n}") }))).await;
    }
    let attack = ATTACK.replace('"', "\\\"");
    let text = format!(
        "title: \"{attack}\"\nname: own\nlogsource: {{product: linux}}\n\
         detection: {{s: {{a|contains: \"{attack}{}\"}}, condition: s}}\n",
        "x".repeat(200)
    );
    let documents = json!({ "documents": { "own.yml": text } });
    assert_eq!(server.api("POST", "/api/v2/detection/import", Some(documents)).await.0, 200);
    server.parts.health.failed("channel", ATTACK);
    let base = format!("http://{}", server.addresses.webui.unwrap());
    let key = server.web_key.clone();
    tokio::task::spawn_blocking(move || look_around(&base, &key)).await.unwrap();
    server.stop().await;
}

/// As the other test, of the pages about agents.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_about_agents_work_in_a_browser() {
    let server = TestServer::start(&[]).await;
    some_agents(&*server.parts.catalog).await;
    let base = format!("http://{}", server.addresses.webui.unwrap());
    let key = server.web_key.clone();
    let looked = move || {
        let axe = axe();
        let mut browser = Chromium::start();
        log_in(&mut browser, &base, &key, &axe);
        the_agents(&mut browser, &base, &axe);
    };
    tokio::task::spawn_blocking(looked).await.unwrap();
    server.stop().await;
}

const AGENT: &str = "agt_00000000000000000000000001";

/// One that says what it likes and is connected, one that was never seen.
async fn some_agents(catalog: &dyn Catalog) {
    let (org, now) = (OrgId::default(), Timestamp::from_secs(1_795_348_800));
    let by = Actor { name: "t".into(), reason: None, correlation_id: "c".into(), at: now };
    let expires_at = now.plus(Duration::from_secs(60));
    let token =
        NewToken { fingerprint: [1; 32], label: ATTACK.into(), host: None, legacy: false, expires_at, uses_max: None };
    let token = catalog.add_token(&org, token, &by).await.unwrap();
    for (key, id, host) in [(1, AGENT, ATTACK), (2, "agt_00000000000000000000000002", "db-1")] {
        let facts = HostFacts {
            hostname: host.into(),
            version: ATTACK.into(),
            capabilities: vec![ATTACK.into(), "x".repeat(64)],
            os_version: "y".repeat(255),
            ..HostFacts::default()
        };
        let (org, id, key) = (org.clone(), id.to_owned(), Some([key; 32]));
        let enrolment = Enrolment { org, token, id, key, facts, certificate_ends_at: Some(expires_at), at: now };
        assert!(matches!(catalog.enrol(enrolment).await.unwrap(), Enrolled::New { .. }));
    }
    let status =
        json!({ "lag_ms": 90_000, "spool_records": 7, "dropped": { ATTACK: 3 }, "collectors": { "audit": ATTACK } });
    let (epoch, acked_seq, status) = (1, 1, Some(status.to_string()));
    let id = AGENT.to_owned();
    let seen = Sighting { org, id, at: now, connected: true, epoch, acked_seq, facts: None, status };
    catalog.sighted(vec![seen]).await.unwrap();
}

fn look_around(base: &str, key: &str) {
    let axe = axe();
    let mut browser = Chromium::start();
    log_in(&mut browser, base, key, &axe);
    the_dashboard(&mut browser, &axe);
    the_audit_viewer(&mut browser, base, &axe);
    the_rules(&mut browser, base, &axe);
    let complaints = browser.complaints();
    // Chromium itself calls the answer to the wrong key an error, and the outage made above.
    let ours = |text: &&String| !text.contains("401") && !text.contains("ERR_INTERNET_DISCONNECTED");
    let own: Vec<&String> = complaints.iter().filter(ours).collect();
    assert!(own.is_empty(), "{own:?}");
    without_scripts(&mut browser, base);
    log_out(&mut browser, base);
}

fn log_in(browser: &mut Chromium, base: &str, key: &str, axe: &str) {
    browser.open(&format!("{base}/audit?table=alert_rules"));
    assert_eq!(browser.eval("location.pathname"), "/login");
    assert_eq!(browser.eval("document.activeElement.id"), "key", "one can type at once");
    browser.type_text("guess");
    browser.press("Enter", 13);
    browser.until("document.querySelector('[role=alert]') !== null && document.readyState === 'complete'");
    is_accessible(browser, axe, "login");
    browser.shot("login");
    browser.type_text(key);
    browser.press("Enter", 13);
    browser.until("location.pathname === '/audit' && document.readyState === 'complete'");
    assert_eq!(browser.eval("location.search"), "?table=alert_rules", "one gets where one wanted to go");
    assert_eq!(browser.eval("document.cookie"), "", "no script can read the session");
    assert!(!browser.eval("document.documentElement.outerHTML").as_str().unwrap().contains(key));
    browser.open(&format!("{base}/"));
}

fn the_dashboard(browser: &mut Chromium, axe: &str) {
    assert_eq!(browser.eval("document.querySelectorAll('.card').length"), 3);
    assert_eq!(browser.eval("document.querySelectorAll('svg circle').length"), 24);
    assert_eq!(browser.eval("document.querySelectorAll('#live img').length"), 0, "no text became markup");
    for (name, dark, width) in [("light", false, 1_280), ("dark", true, 1_280), ("narrow", false, 360)] {
        look(browser, dark, width);
        is_accessible(browser, axe, name);
        browser.shot(&format!("dashboard-{name}"));
    }
    look(browser, false, 1_280);
    // The refresh exchanges the figures in place: the page, open details and the focus stay.
    browser.eval(
        "window.mark = 1; document.getElementById('live').dataset.old = '1'; \
         document.querySelector('#figures').open = true; document.querySelector('#figures summary').focus(); \
         document.dispatchEvent(new Event('visibilitychange'))",
    );
    browser.until("document.getElementById('live').dataset.old === undefined");
    assert_eq!(browser.eval("window.mark"), 1);
    assert_eq!(browser.eval("document.querySelector('#figures').open"), true);
    assert_eq!(browser.eval("document.activeElement.tagName"), "SUMMARY");
    // A server that does not answer is said, once, and the figures stay.
    browser.call(
        "Network.emulateNetworkConditions",
        json!({ "offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }),
    );
    browser.eval("document.dispatchEvent(new Event('visibilitychange'))");
    browser.until("document.getElementById('state').textContent.includes('does not answer')");
    browser.call(
        "Network.emulateNetworkConditions",
        json!({ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }),
    );
    browser.eval("document.dispatchEvent(new Event('visibilitychange'))");
    browser.until("document.getElementById('state').textContent === ''");
    // By keyboard alone: the first stop skips the navigation, and every stop can be seen.
    // A fresh page, since tabbing goes on from where the focus was last.
    browser.eval("location.reload()");
    browser.until("window.mark === undefined && document.readyState === 'complete'");
    browser.press("Tab", 9);
    for _ in 0..4 {
        assert_eq!(browser.eval("getComputedStyle(document.activeElement).outlineStyle"), "solid");
        browser.press("Tab", 9);
    }
}

fn the_audit_viewer(browser: &mut Chromium, base: &str, axe: &str) {
    browser.open(&format!("{base}/audit"));
    assert_eq!(browser.eval("document.querySelectorAll('tbody tr').length"), 20);
    for (name, dark, width) in [("light", false, 1_280), ("dark", true, 1_280), ("narrow", false, 360)] {
        look(browser, dark, width);
        is_accessible(browser, axe, name);
        browser.shot(&format!("audit-{name}"));
    }
    look(browser, false, 1_280);
    browser.eval("document.querySelector('[rel=next]').click()");
    browser.until("location.search === '?page=2' && document.readyState === 'complete'");
    browser.eval(
        "document.getElementById('table').value = 'alert_rules'; document.querySelector('.filters button').click()",
    );
    browser.until("location.search.includes('table=alert_rules') && document.readyState === 'complete'");
    let text = browser.eval("document.querySelector('.audit').innerText");
    let text = text.as_str().unwrap();
    assert!(text.contains("priority") && text.contains("100") && text.contains(ATTACK), "{text}");
    // Rows that tell of a change, not only of something new.
    for width in [360, 1_024, 1_280, 1_600] {
        look(browser, false, width);
        let broken = browser.eval(
            "[...document.querySelectorAll('.audit td:nth-child(1), .audit td:nth-child(4)')].filter(cell => { \
             const range = document.createRange(); range.selectNodeContents(cell); \
             return new Set([...range.getClientRects()].map(box => box.top)).size > 1 }).length",
        );
        assert_eq!(broken, 0, "times and tables are on one line at {width}");
        let heights = browser.eval("new Set([...document.querySelectorAll('.filters input, .filters select')].map(field => field.offsetHeight)).size");
        assert_eq!(heights, 1, "the labels of a row are at one height");
        browser.shot(&format!("audit-changes-{width}"));
    }
    look(browser, false, 1_280);
    assert_eq!(browser.eval("document.querySelectorAll('.audit img').length"), 0);
    assert!(!browser.eval("document.title").as_str().unwrap().contains("owned"));
    browser.shot("audit-change");
}

fn the_rules(browser: &mut Chromium, base: &str, axe: &str) {
    for (place, ready) in [("/rules", "tbody a"), ("/rules/own", "pre")] {
        browser.open(&format!("{base}{place}"));
        assert_ne!(browser.eval(&format!("document.querySelectorAll('{ready}').length")), 0, "{place}");
        assert_eq!(browser.eval("document.querySelectorAll('main img').length"), 0, "no text became markup");
        for (name, dark, width) in [("light", false, 1_280), ("dark", true, 1_280), ("narrow", false, 360)] {
            look(browser, dark, width);
            is_accessible(browser, axe, name);
            browser.shot(&format!("rules{}-{name}", place.replace('/', "-")));
        }
        look(browser, false, 1_280);
    }
    browser
        .eval("document.getElementById('state').value = 'off'; document.querySelector('form.filters button').click()");
    browser.until("document.readyState === 'complete' && document.querySelector('td .badge').textContent === 'off'");
    browser.open(&format!("{base}/rules?state=off"));
    assert_eq!(browser.eval("document.querySelector('tbody a').textContent"), ATTACK);
}

fn the_agents(browser: &mut Chromium, base: &str, axe: &str) {
    for place in ["/agents".to_owned(), format!("/agents/{AGENT}")] {
        browser.open(&format!("{base}{place}"));
        assert_ne!(browser.eval("document.querySelectorAll('tbody tr').length"), 0, "{place}");
        assert_eq!(browser.eval("document.querySelectorAll('main img').length"), 0, "no text became markup");
        for (name, dark, width) in [("light", false, 1_280), ("dark", true, 1_280), ("narrow", false, 360)] {
            look(browser, dark, width);
            is_accessible(browser, axe, &format!("{place} {name}"));
            browser.shot(&format!("agent{}-{name}", if place == "/agents" { "s" } else { "" }));
        }
        look(browser, false, 1_280);
    }
    browser.eval("document.querySelector('button[value=revoke]').click()");
    browser
        .until("document.readyState === 'complete' && document.querySelector('td .badge').textContent === 'revoked'");
    browser.eval("document.querySelector('button[value=remove]').click()");
    browser.until("location.pathname === '/agents' && document.readyState === 'complete'");
    assert_eq!(browser.eval("document.querySelectorAll('tbody tr').length"), 1);
    browser.eval(
        "document.getElementById('for-host').value = 'web-9'; document.querySelector('#new-agent button').click()",
    );
    browser.until("document.readyState === 'complete' && document.getElementById('command') !== null");
    let command = browser.eval("document.getElementById('command').textContent");
    assert!(command.as_str().is_some_and(|text| text.starts_with("export SM_TOKEN='sm_default_")), "{command}");
    for (name, width) in [("wide", 1_280), ("narrow", 360)] {
        look(browser, false, width);
        is_accessible(browser, axe, &format!("token {name}"));
        browser.shot(&format!("agent-token-{name}"));
    }
    browser.eval("document.querySelector('[data-copy]').click()");
    // A browser without a clipboard selects it.
    browser.until("['Copied', 'Selected: press Ctrl+C'].includes(document.querySelector('[data-copy]').textContent)");
}

fn without_scripts(browser: &mut Chromium, base: &str) {
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&format!("{base}/"));
    assert_eq!(browser.eval("document.querySelectorAll('.card').length"), 3);
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": false }));
}

fn log_out(browser: &mut Chromium, base: &str) {
    browser.open(&format!("{base}/"));
    browser.eval("document.querySelector('.who button').click()");
    browser.until("location.pathname === '/login'");
    browser.open(&format!("{base}/"));
    assert_eq!(browser.eval("location.pathname"), "/login");
}

fn look(browser: &mut Chromium, dark: bool, width: u32) {
    let scheme = if dark { "dark" } else { "light" };
    let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
    browser.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", size);
    // The page takes a moment to be laid out anew.
    let mut wide = Value::Null;
    for _ in 0..100 {
        wide = browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        if wide == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let place = browser.eval("location.pathname");
    let out = browser.eval(
        "[...document.querySelectorAll('body *')].filter(e => \
         e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 160))",
    );
    assert_eq!(wide, 0, "nothing sticks out of {place} at {width}: {out}");
}

/// axe finds nothing: labels, contrast, roles, headings, focus.
fn is_accessible(browser: &mut Chromium, axe: &str, name: &str) {
    browser.eval(&format!("{axe}; 1"));
    let found = browser.eval(
        "axe.run(document, { resultTypes: ['violations'] }).then(r => r.violations.map(v => \
         v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | ')))",
    );
    assert_eq!(found, Value::Array(Vec::new()), "{name}");
}
