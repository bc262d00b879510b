//! The entries of small tables, and that what the hooks decide by them is what the agent decides.

use super::*;

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn service(name: &str, address: &str, base: &[&str]) -> Service {
    let mut service = Service::new(name, vec![addr(address)]);
    if !base.is_empty() {
        service.base = Base::Endpoints(base.iter().map(|b| addr(b)).collect());
    }
    service
}

fn of(services: Vec<Service>) -> HashMap<RouteKey, Route> {
    let all = entries(&RouteTable::new(services, vec![]).unwrap()).unwrap();
    let count = all.len();
    let map: HashMap<_, _> = all.into_iter().collect();
    assert_eq!(map.len(), count, "no key twice");
    map
}

fn key(environment: u64, address: &str, slot: u32) -> RouteKey {
    RouteKey::new(environment, addr(address).into(), slot)
}

#[test]
fn groups() {
    let mut cart = service("cart", "10.96.0.1:80", &["10.1.0.1:8080", "10.1.0.2:8080"]);
    cart.header = HeaderPolicy::Propagate;
    cart.variants.insert("pr-1".parse().unwrap(), vec![addr("10.2.0.1:8080")].into());
    cart.variants.insert("pr-2".parse().unwrap(), vec![].into());
    let mut db = service("db", "10.96.0.2:3306", &[]);
    db.fallback = Fallback::Refuse;
    db.speaks_first = SpeaksFirst::Server;
    let map = of(vec![cart, db]);
    let base = map[&key(BASE, "10.96.0.1:80", 0)];
    assert_eq!((base.count, base.flags, base.endpoint), (2, ROUTE_PROPAGATE, addr("10.1.0.1:8080").into()));
    assert_eq!(map[&key(BASE, "10.96.0.1:80", 1)].endpoint, addr("10.1.0.2:8080").into());
    assert!(!map.contains_key(&key(BASE, "10.96.0.1:80", 2)));
    assert_eq!(map[&key(environment_key(b"pr-1"), "10.96.0.1:80", 0)].endpoint, addr("10.2.0.1:8080").into());
    assert_eq!(map[&key(environment_key(b"pr-2"), "10.96.0.1:80", 0)].count, 0);
    let db = map[&key(BASE, "10.96.0.2:3306", 0)];
    assert_eq!((db.count, db.flags), (0, ROUTE_REFUSE | ROUTE_SERVER_FIRST | ROUTE_ITSELF));
}

#[test]
fn endpoints_of_the_addresses_own_family_go_first() {
    let map = of(vec![
        service("mixed", "[fd00::1]:80", &["10.1.0.1:80", "[fd01::1]:80", "[fd01::2]:80"]),
        service("other", "[fd00::2]:80", &["10.1.0.1:81"]),
    ]);
    let mixed = map[&key(BASE, "[fd00::1]:80", 0)];
    assert_eq!((mixed.count, mixed.endpoint), (2, addr("[fd01::1]:80").into()));
    assert_eq!(map[&key(BASE, "[fd00::2]:80", 0)].endpoint, addr("10.1.0.1:81").into(), "the relay's");
}

#[test]
fn reverse_entries_are_unambiguous() {
    let map = of(vec![
        service("a", "10.96.0.1:80", &["10.1.0.1:80", "10.1.0.9:80"]),
        service("b", "10.96.0.2:80", &["10.1.0.2:80", "10.1.0.9:80", "10.96.0.1:80"]),
    ]);
    let reverse = |endpoint: &str| map.get(&key(REVERSE, endpoint, 0)).map(|r| SocketAddr::from(r.endpoint));
    assert_eq!(reverse("10.1.0.1:80"), Some(addr("10.96.0.1:80")));
    assert_eq!(reverse("10.1.0.2:80"), Some(addr("10.96.0.2:80")));
    assert_eq!(reverse("10.1.0.9:80"), None, "shared");
    assert_eq!(reverse("10.96.0.1:80"), None, "a service itself");
}
