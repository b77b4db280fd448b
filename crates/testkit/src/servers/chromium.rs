//! A browser of the test's own, told what to do by the Chrome DevTools protocol over two pipes: no
//! port, no library.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A headless browser with one page. It is killed when dropped.
pub struct Chromium {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next_id: u64,
    session: Option<String>,
    events: Vec<Value>,
    _dir: TempDir,
}

impl Chromium {
    /// Starts it with an empty page. Blocks; so do all calls.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(dir.path().join("chromium.log")).expect("a log file");
        // The protocol is spoken on the descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("`sh` can be started");
        let input = child.stdin.take().expect("its input is a pipe");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut browser = Self { child, input, output, next_id: 0, session: None, events: Vec::new(), _dir: dir };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol; returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input
            .write_all(format!("{message}\0").as_bytes())
            .expect("chromium takes commands; `make test` installs it");
        loop {
            let mut answer = self.read();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.output.read_until(0, &mut bytes).expect("chromium answers");
        assert!(bytes.pop() == Some(0), "chromium ended; `make test` installs it");
        serde_json::from_slice(&bytes).expect("chromium answers in JSON")
    }

    /// Loads a page and waits until it is whole.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression in the page; a promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until an expression is true, also across a change of the page.
    pub fn until(&mut self, expression: &str) {
        let end = Instant::now() + WAIT_MAX;
        loop {
            let params = json!({ "expression": expression, "returnByValue": true });
            if self.call("Runtime.evaluate", params)["result"]["value"] == true {
                return;
            }
            assert!(Instant::now() < end, "never true: {expression}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key, such as `Tab` or `Enter`.
    pub fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// What the page complained about so far: exceptions, console errors, refused assets.
    pub fn complaints(&mut self) -> Vec<String> {
        self.eval("1");
        let bad = |event: &&Value| {
            let level = event["params"]["entry"]["level"].as_str().or(event["params"]["type"].as_str());
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded" | "Runtime.consoleAPICalled") => level == Some("error"),
                _ => false,
            }
        };
        self.events.iter().filter(bad).map(ToString::to_string).collect()
    }

    /// A picture of the whole page, written to the folder that `BROWSER_SHOTS` names, if it does.
    #[expect(clippy::disallowed_methods, reason = "a test tool: who runs the tests says where")]
    pub fn shot(&mut self, name: &str) {
        let Ok(folder) = std::env::var("BROWSER_SHOTS") else { return };
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let result = self.call("Page.captureScreenshot", params);
        let data = result["data"].as_str().expect("a picture");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).expect("base64");
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), bytes).expect("the picture is written");
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The accessibility checker that `make test` keeps in the cache.
#[expect(clippy::disallowed_methods, reason = "a test tool: who runs the tests says where")]
pub fn axe() -> String {
    let cache = std::env::var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").expect("a home")).join(".cache"));
    let file = cache.join("mutt-security-manager/axe.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}; `make test` installs it", file.display()))
}
