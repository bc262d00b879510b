//! Two controllers, a proxy and a network that delivers late or never, by chance: in the end the proxy has what is stored.

use proptest::prelude::*;

use super::*;

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    Put(u8, u8),
    Delete(u8),
    /// A controller goes on by a step, telling at most so many environments at a time.
    Step(usize, i64),
    /// The answer to what a controller has said is lost, and what it said is late.
    Lost(usize),
    /// A controller ends, and another begins in its place.
    Crash(usize),
    /// All of them do, and the file is opened anew.
    CrashAll,
    /// Something late arrives.
    Arrive(usize),
    /// Milliseconds.
    Pass(u16),
    Activate,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(env, to)| Event::Put(env, to)),
        2 => (0..4u8).prop_map(Event::Delete),
        8 => (0..2usize, 1..4i64).prop_map(|(who, most)| Event::Step(who, most)),
        2 => (0..2usize).prop_map(Event::Lost),
        1 => (0..2usize).prop_map(Event::Crash),
        1 => Just(Event::CrashAll),
        3 => any::<usize>().prop_map(Event::Arrive),
        1 => (0..20_000u16).prop_map(Event::Pass),
        1 => Just(Event::Activate),
    ]
}

/// A controller, as far as a proxy sees it.
#[derive(Default)]
struct Controller {
    lives: usize,
    /// What it is about to say, or is saying.
    says: Option<Work>,
}

impl Controller {
    fn name(&self, who: usize) -> String {
        format!("{who}-{}", self.lives)
    }
}

struct World {
    scene: Scene,
    proxy: Proxy,
    controllers: [Controller; 2],
    /// What may still arrive, and until when.
    late: Vec<(i64, Vec<Item>)>,
    table: BTreeMap<String, String>,
}

impl World {
    async fn new() -> Self {
        let scene = Scene::new().await;
        sqlx::query("PRAGMA synchronous = OFF").execute(&scene.store.pool).await.expect("set");
        let proxy = scene.proxy("p").await;
        Self { scene, proxy, controllers: Default::default(), late: vec![], table: BTreeMap::new() }
    }

    fn arrive(&mut self, items: &[Item]) {
        for item in items {
            match &item.destination {
                Some(to) => drop(self.table.insert(item.env.clone(), to.clone())),
                None => drop(self.table.remove(&item.env)),
            }
        }
    }

    /// What a controller was saying is on its way without it, since it was read.
    fn lose(&mut self, who: usize) -> Option<Work> {
        let work = self.controllers[who].says.take()?;
        self.late.push((work.read + millis(GRACE), work.items.clone()));
        Some(work)
    }

    async fn step(&mut self, who: usize, most: i64) {
        let name = self.controllers[who].name(who);
        if let Some(work) = self.controllers[who].says.take() {
            self.arrive(&work.items);
            self.scene.told(&self.proxy, &name, &work).await;
        } else if self.scene.claim(&self.proxy, &name).await {
            let work = self.scene.store.work(&self.proxy, &name, most).await.expect("an answer");
            if let Some(work) = work.filter(|work| !work.items.is_empty()) {
                self.controllers[who].says = Some(work);
            } else {
                self.scene.store.release(&self.proxy, &name).await.expect("released");
            }
        }
    }

    async fn lost(&mut self, who: usize) {
        let name = self.controllers[who].name(who);
        // One that has slept for longer finds an answer, or none that could come late.
        let now = self.scene.clock.load(Ordering::Relaxed);
        if self.controllers[who].says.as_ref().is_some_and(|work| work.read == now)
            && let Some(work) = self.lose(who)
        {
            self.scene.store.in_doubt(&self.proxy, &work.items).await.expect("stored");
            self.scene.store.release(&self.proxy, &name).await.expect("released");
        }
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Put(env, to) => self.scene.put("p", &format!("e{env}"), &format!("h:{}", to + 1)).await,
            Event::Delete(env) => self.scene.delete("p", &format!("e{env}")).await,
            Event::Step(who, most) => self.step(who, most).await,
            Event::Lost(who) => self.lost(who).await,
            Event::Crash(who) => {
                self.lose(who);
                self.controllers[who].lives += 1;
            }
            Event::CrashAll => {
                for who in 0..2 {
                    self.lose(who);
                    self.controllers[who].lives += 1;
                }
                self.scene.store.adopt().await.expect("opened");
            }
            Event::Arrive(which) => {
                let now = self.scene.clock.load(Ordering::Relaxed);
                self.late.retain(|(until, _)| now < *until);
                if !self.late.is_empty() {
                    let (_, items) = self.late.remove(which % self.late.len());
                    self.arrive(&items);
                }
            }
            Event::Pass(time) => self.scene.pass(Duration::from_millis(time.into())),
            Event::Activate => self.scene.store.activate(&id("p")).await.expect("activated"),
        }
    }

    /// All that is left comes to its end.
    async fn end(&mut self) {
        for round in 0..1000 {
            if self.scene.store.pending().await == 0 && self.controllers.iter().all(|it| it.says.is_none()) {
                return;
            }
            self.step(round % 2, 4).await;
            if round % 3 == 2 {
                self.happen(Event::Arrive(round)).await;
            }
            if round % 7 == 6 {
                self.scene.pass(Duration::from_secs(4));
            }
        }
        panic!("something is left to be told after a thousand rounds");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_the_proxy_has_what_is_stored(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new().await;
            for event in events {
                world.happen(event).await;
            }
            world.end().await;
            // What nothing could have been late for.
            prop_assert_eq!(&world.table, &world.scene.store.routes("p").await.expect("routes"));
            Ok(())
        })?;
    }
}
