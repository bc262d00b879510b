//! The page, in a browser. With `PICOP_PICTURES=DIR` pictures of it are kept there.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use testbed::browser::Browser;
use testbed::{Agent, AgentOptions, require_privilege};

use crate::scene::{Result, Scene, connect, served};

/// WebDriver's code points of keys.
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";
const RIGHT: &str = "\u{e014}";
const END: &str = "\u{e010}";

fn keep(browser: &Browser, name: &str) -> Result {
    let Some(dir) = std::env::var_os("PICOP_PICTURES") else { return Ok(()) };
    fs::create_dir_all(&dir)?;
    let file = fs::File::create(std::path::Path::new(&dir).join(format!("{name}.png")))?;
    let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(file).spawn()?;
    decode.stdin.take().ok_or("piped")?.write_all(browser.picture()?.as_bytes())?;
    assert!(decode.wait()?.success());
    Ok(())
}

fn cell(service: &str, environment: &str) -> String {
    format!("document.querySelector('.cell[data-service=\"{service}\"][data-environment=\"{environment}\"]')")
}

#[test]
fn it_shows_who_uses_what_and_follows() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("page")?;
    let agent = scene.agent(&["--http", "127.0.0.1:0"], &[])?;
    let at = served(&agent, "--http")?;
    let browser = Browser::start(scene.cluster.dir())?;
    browser.open(&format!("http://{at}/"))?;
    browser.until("document.body.dataset.looks >= 1")?;

    // The matrix is right.
    for (service, environment, kind) in
        [("cart", "pr-1", "own"), ("cart", "", "base"), ("db", "pr-1", "base"), ("billing", "pr-1", "empty")]
    {
        let found = browser.run(&format!("return {}.dataset.kind", cell(service, environment)))?;
        assert_eq!(found, kind, "{service} in {environment:?}");
    }
    assert_eq!(browser.run("return document.getElementById('health').textContent")?, "live");

    // It follows what happens, without being asked.
    connect(&scene, &scene.member, scene.db, 40, &[])?;
    connect(&scene, &scene.instrumented, scene.cart, 30, &[("Env-Id", "pr-1")])?;
    browser.until("document.querySelector('#flows path title')")?;
    browser.run(&format!("{}.click()", cell("db", "pr-1")))?;
    browser.until("document.getElementById('details').innerText.includes('no_variant')")?;
    let details = browser.run("return document.getElementById('details').innerText")?;
    assert!(details.as_str().is_some_and(|text| text.contains("direct") && text.contains("40")), "{details}");
    let height = browser.run("return document.querySelector('header').clientHeight")?;
    assert!(height.as_f64() < Some(60.0), "the header has more than one line: {height}");
    keep(&browser, "small-light")?;

    // New routes, too.
    let more =
        scene.routes().replace("workloads:", "- {name: added, addresses: [\"10.96.9.9:80\"]}\nworkloads:");
    agent.routes(&more)?;
    browser.until(&cell("added", "pr-1"))?;

    // By keyboard alone: from the first cell to one to the right and below.
    browser.run("document.getElementById('grid').focus(); at = { s: 0, e: 0 }; draw()")?;
    browser.press(&[DOWN, RIGHT, DOWN, ENTER].concat())?;
    browser.until("document.querySelector('#details h2').textContent === 'cart in pr-1'")?;
    let here = browser.run("return [document.getElementById('here').dataset.service, document.getElementById('here').dataset.environment]")?;
    assert_eq!(here, serde_json::json!(["cart", "pr-1"]));
    browser.until("document.getElementById('details').innerText.includes('p99')")?;
    browser.scheme("dark")?;
    browser.until("matchMedia('(prefers-color-scheme: dark)').matches")?;
    keep(&browser, "small-dark")?;
    let complaints = browser.complaints()?;
    assert!(complaints.is_empty(), "{complaints:#?}");

    // An agent that is gone is not shown as one that lives; and that this is told is the control of the line above.
    drop(agent);
    browser.until("document.getElementById('health').className === 'bad'")?;
    assert!(!browser.complaints()?.is_empty(), "the console says nothing of an agent that is gone");
    Ok(())
}

/// 500 services by 200 environments: the page draws what can be seen of it, and gets about.
#[test]
fn it_bears_many_services_and_environments() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("many")?;
    let mut routes = "services:\n".to_owned();
    for service in 0..500 {
        let (high, low) = (service / 250, service % 250);
        let variants: Vec<_> = (0..200)
            .filter(|environment| (service * 7 + environment * 13) % 17 == 0)
            .map(|environment| format!("pr-{environment:03}: [\"10.244.1.{}:8080\"]", environment + 1))
            .collect();
        writeln!(
            routes,
            "- {{name: service-{service:03}, addresses: [\"10.97.{high}.{low}:80\"], variants: {{{}}}}}",
            variants.join(", ")
        )?;
    }
    writeln!(routes, "workloads:\n- {{cgroup: {}, environment: pr-001}}", scene.member.cgroup_path_rel())?;
    let args = ["--http", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let agent =
        Agent::start_with(&scene.cluster, AgentOptions { routes, args, plain: true, ..Default::default() })?;
    let at = served(&agent, "--http")?;
    let browser = Browser::start(scene.cluster.dir())?;
    browser.open(&format!("http://{at}/"))?;
    browser.until("document.body.dataset.looks >= 1")?;
    let size =
        browser.run("return [rows.length, columns.length, document.querySelectorAll('.cell').length]")?;
    assert_eq!((&size[0], &size[1]), (&500.into(), &201.into()), "{size}");
    let drawn = size[2].as_u64().unwrap_or_default();
    assert!((100..6000).contains(&drawn), "{drawn} cells are drawn");
    keep(&browser, "many-light")?;

    browser.run("document.getElementById('grid').focus()")?;
    browser.press(&format!("{END}{}", DOWN.repeat(60)))?;
    let here = "document.getElementById('here')";
    browser.until(&format!(
        "{here} && {here}.dataset.environment === 'pr-199' && {here}.dataset.service === 'service-060'"
    ))?;
    let visible = browser.run(&format!(
        "const c = {here}.getBoundingClientRect(), g = document.getElementById('grid').getBoundingClientRect();
         return c.left >= g.left && c.right <= g.right && c.top >= g.top && c.bottom <= g.bottom"
    ))?;
    assert_eq!(visible, true, "where one is must be seen");
    browser.run("document.getElementById('fs').value = '123'; document.getElementById('fs').dispatchEvent(new Event('input'))")?;
    assert_eq!(
        browser.run("return rows.map(row => matrix.services[row].name)")?,
        serde_json::json!(["service-123"])
    );
    browser.run("document.getElementById('fs').value = ''; document.getElementById('fs').dispatchEvent(new Event('input'))")?;
    browser.scheme("dark")?;
    keep(&browser, "many-dark")?;
    let complaints = browser.complaints()?;
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}
