//! A browser, driven by WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::{eventually, http, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A browser window. It is closed, and its driver ended, when this is dropped.
pub struct Browser {
    driver: Child,
    /// Where it writes; by this its processes are known.
    profile: PathBuf,
    at: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one, with a profile and what else it writes in `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let log = dir.join("chromedriver.log");
        let out = std::fs::File::create(&log)?;
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("starting chromedriver")?;
        let profile = dir.join("profile");
        let mut browser =
            Self { driver, profile: profile.clone(), at: "127.0.0.1:0".parse()?, session: String::new() };
        let port: u16 = wait_until("chromedriver's port", PATIENCE, || {
            let said = std::fs::read_to_string(&log).ok()?;
            said.split("started successfully on port ").nth(1)?.split('.').next()?.parse().ok()
        })?;
        browser.at.set_port(port);
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1500,950",
        ];
        let options = json!({
            "binary": "/usr/bin/chromium",
            "args": args.iter().map(|&arg| arg.to_owned()).chain([format!("--user-data-dir={}", profile.display())]).collect::<Vec<_>>(),
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.ask("POST", "/session", &wanted)?;
        made["sessionId"].as_str().context("a session")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Goes to a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.do_this("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script in the page; what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.do_this("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression of the page's is true.
    pub fn until(&self, expression: &str) -> Result<()> {
        let holds = || self.run(&format!("return !!({expression})")).is_ok_and(|value| value == true);
        if eventually(PATIENCE, holds) {
            return Ok(());
        }
        bail!("never true: {expression}; the page: {}", self.run("return document.body.innerText")?)
    }

    /// Presses keys, with the focus where it is. Special ones are WebDriver's code points.
    pub fn press(&self, keys: &str) -> Result<()> {
        let pressed: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": pressed}]});
        self.do_this("POST", "/actions", &actions).map(drop)
    }

    /// Has the page see a dark or a light system.
    pub fn scheme(&self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.do_this("POST", "/goog/cdp/execute", &command).map(drop)
    }

    /// Errors and warnings of the page's console since the last time.
    pub fn complaints(&self) -> Result<Vec<Value>> {
        let log = self.do_this("POST", "/se/log", &json!({"type": "browser"}))?;
        Ok(log.as_array().cloned().unwrap_or_default())
    }

    /// Takes a picture (PNG, in base64).
    pub fn picture(&self) -> Result<String> {
        Ok(self.do_this("GET", "/screenshot", &Value::Null)?.as_str().context("a picture")?.to_owned())
    }

    fn do_this(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let headers = format!("Host: localhost:{}\r\nContent-Type: application/json\r\n", self.at.port());
        let answer = http::ask(self.at, method, path, &headers, &body)?;
        let mut said: Value = serde_json::from_slice(&answer.body)?;
        if answer.status != 200 {
            bail!("{method} {path}: {said}");
        }
        Ok(said["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The session's end is the browser's; the driver is this process's own child.
        if !self.session.is_empty()
            && let Err(error) = self.do_this("DELETE", "", &Value::Null)
        {
            eprintln!("browser: {error:#}");
        }
        if let Err(error) = self.driver.kill().and_then(|()| self.driver.wait().map(drop)) {
            eprintln!("chromedriver: {error:#}");
        }
        // A session that could not be ended leaves its browser behind.
        for process in of_profile(&self.profile) {
            if let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::KILL) {
                eprintln!("chromium {process:?}: {error:#}");
            }
        }
    }
}

/// Processes that were started with this profile.
fn of_profile(profile: &Path) -> Vec<Pid> {
    let argument = format!("--user-data-dir={}", profile.display());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let with_it = processes.filter(|entry| {
        // One that is gone meanwhile has no command line.
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes()))
    });
    with_it.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}
