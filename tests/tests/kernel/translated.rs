//! Beside a program of the same cgroup that has rewritten a connect before picop sees it: a socket load-balancer.

use std::net::SocketAddr;

use crate::translator::Translator;
use testbed::{Client, Pod, require_privilege};

use crate::common::{
    Recorder, Result, Routes, Scene, access, answer, base, expect, header, hello, soon, variants, workload,
};

struct Beside {
    scene: Scene,
    instrumented: Pod,
    main: Recorder,
    variant: Recorder,
    cart: SocketAddr,
    translator: Translator,
}

impl Beside {
    /// With the translator attached, ahead of picop, and connections to `cart` at its base already.
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let instrumented = scene.cluster.pod("instrumented")?;
        let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
        let cart = scene.vip();
        let mut translator = Translator::attach(&scene.cluster.cgroup_dir())?;
        translator.translate(cart, main.at)?;
        assert_eq!(answer(&hello(cart).run(&scene.client)?), "main", "without picop");
        Ok(Self { scene, instrumented, main, variant, cart, translator })
    }

    fn routes(&self, more: &[SocketAddr]) -> Routes {
        let settings = |at: &[SocketAddr]| {
            format!("expect_header: always, {}, {}", base(at), variants(&[("pr-1", &[self.variant.at])]))
        };
        let routes = Routes::new().service("cart", &[self.cart], &settings(&[self.main.at]));
        let routes = match more {
            [] => routes,
            also => routes.service("more", also, &base(&[self.main.at])),
        };
        routes
            .workload(self.scene.workload("environment: pr-1, path: auto"))
            .workload(workload(&self.instrumented, "context: header, path: auto"))
    }

    /// A connection that begins with a header.
    fn ask(&self, environment: &str) -> Result<testbed::ClientReport> {
        let mut first = header(&[("Env-Id", environment)]);
        first.extend_from_slice(b"hello");
        Ok(Client::to(self.cart)
            .bytes(&first)
            .half_close()
            .read_all()
            .timeout(soon())
            .run(&self.instrumented)?)
    }
}

#[test]
fn a_translated_address_is_its_services_on_both_paths() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("translated")?;
    let agent = it.scene.agent(&it.routes(&[]), &[])?;
    let before = it.translator.translated()?;
    assert_eq!(answer(&hello(it.cart).run(&it.scene.client)?), "variant");
    let relayed = it.ask("pr-1")?;
    assert_eq!(answer(&relayed), "variant");
    // What was asked for, as far as anybody behind the translator can tell.
    let original = it.main.at.to_string();
    expect(
        &access(&agent, relayed.local)?,
        &[("service", "cart"), ("reason", "variant"), ("original", &original), ("outcome", "ok")],
    );
    assert_eq!(answer(&it.ask("pr-2")?), "main", "an environment without a variant");
    assert_eq!(it.translator.translated()? - before, 3, "each came to picop translated");
    let direct = agent.wait_access(1, |line| line["path"] == "direct")?;
    expect(&direct[0], &[("service", "cart"), ("reason", "variant"), ("original", &original)]);
    Ok(())
}

/// An address that two services have as their base says of neither that it was meant.
#[test]
fn what_may_be_anothers_is_left_alone() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("translated-two")?;
    let agent = it.scene.agent(&it.routes(&[it.scene.vip()]), &[])?;
    assert_eq!(answer(&hello(it.cart).run(&it.scene.client)?), "main");
    // The programs were live.
    agent.routes(&it.routes(&[]).to_string())?;
    assert_eq!(answer(&hello(it.cart).run(&it.scene.client)?), "variant");
    Ok(())
}
