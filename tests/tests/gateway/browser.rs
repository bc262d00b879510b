//! A browser, before environments that are hosts. It keeps its connections alive, as browsers do.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::json;
use testbed::browser::Browser;

use crate::Result;
use crate::pages::Pages;
use crate::program::{Gateway, Proxy};

/// Asks both environments in turn, eight requests at a time, and says what was wrong.
const ASK: &str = r"
    window.wrong = null;
    (async () => {
        const wrong = [];
        let next = 0;
        const ask = async () => {
            for (let at = next++; at < 200; at = next++) {
                const host = at % 2 ? 'pr-1' : 'pr-2';
                const answer = await fetch(`http://${host}.preview.localhost:${location.port}/${at}`);
                const text = await answer.text();
                if (text !== `${host} /${at}`) wrong.push([at, text]);
            }
        };
        await Promise.all(Array.from({ length: 8 }, ask));
        window.wrong = wrong;
    })().catch(error => { window.wrong = [String(error)]; });
";

/// Echoes over a websocket of each environment, at once.
const ECHO: &str = r"
    window.echoed = null;
    const echo = host => new Promise((done, failed) => {
        const heard = [];
        const socket = new WebSocket(`ws://${host}.preview.localhost:${location.port}/socket`);
        socket.onerror = () => failed('a websocket failed');
        socket.onmessage = message => {
            heard.push(message.data);
            if (heard.length === 1) for (const word of ['one', 'x'.repeat(70000), 'three']) socket.send(word);
            if (heard.length === 4) socket.close();
        };
        socket.onclose = () => done(heard.map(word => word.length > 100 ? word.length : word));
    });
    Promise.all(['pr-1', 'pr-2'].map(echo)).then(
        heard => { window.echoed = heard; }, error => { window.echoed = error; });
";

#[test]
fn environments_as_hosts() -> Result {
    let dir = tempfile::tempdir()?;
    let (base, one, two) = (Pages::start("base")?, Pages::start("pr-1")?, Pages::start("pr-2")?);
    let proxy = Proxy::start(dir.path(), base.at, false)?;
    proxy.put("pr-1", one.at)?;
    proxy.put("pr-2", two.at)?;
    let upstream = proxy.at.to_string();
    let args = [
        "http",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &upstream,
        "--host-pattern",
        "{env}.preview.localhost",
    ];
    let gateway = Gateway::start(dir.path(), &args)?;
    let port = gateway.address("http")?.port();

    let browser = Browser::start(dir.path())?;
    for (host, title) in
        [("pr-1.preview.localhost", "pr-1"), ("pr-2.preview.localhost", "pr-2"), ("localhost", "base")]
    {
        browser.open(&format!("http://{host}:{port}/"))?;
        assert_eq!(browser.run("return document.title")?, title);
    }
    browser.open(&format!("http://pr-1.preview.localhost:{port}/"))?;
    browser.run(ASK)?;
    browser.until("window.wrong")?;
    assert_eq!(browser.run("return window.wrong")?, json!([]));

    browser.run(ECHO)?;
    browser.until("window.echoed")?;
    let echoed = json!([["pr-1", "one", 70000, "three"], ["pr-2", "one", 70000, "three"]]);
    assert_eq!(browser.run("return window.echoed")?, echoed);

    // It did keep its connections alive, and so did the gateway.
    let access = gateway.access();
    let asked: Vec<_> = access.iter().filter(|line| line["status"] == 200).collect();
    assert!(asked.len() >= 200, "{} requests", asked.len());
    let clients: BTreeSet<_> = asked.iter().filter_map(|line| line["client"].as_str()).collect();
    assert!(clients.len() <= 40, "{} connections for {} requests", clients.len(), asked.len());
    let servers = one.connections.load(Ordering::Relaxed) + two.connections.load(Ordering::Relaxed);
    assert!(servers <= 40, "{servers} connections for {} requests", asked.len());
    assert!(asked.iter().any(|line| line["reused"] == true));
    Ok(())
}
