use super::*;

#[test]
fn entries() {
    let entries = read(br#"[{"env_id":"pr-1","destination":"10.0.0.7:80","more":1},{"destination":"cart:80","env_id":"a b"}]"#);
    let entries = entries.expect("good");
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[1].env_id.as_str(), &*entries[1].destination), ("a b", "cart:80"));
    assert_eq!(read(b"[]"), Ok(Vec::new()));
}

#[test]
fn what_is_refused_says_why() {
    for (body, words) in [
        ("", "EOF"),
        ("{}", "list"),
        (r#"[{"env_id":1,"destination":"a:1"}]"#, "integer"),
        (r#"[{"destination":"a:1"}]"#, "entry 0 has no env_id"),
        (r#"[{"env_id":"","destination":"a:1"}]"#, "entry 0 has no env_id"),
        (r#"[{"env_id":"a","destination":"a:1"},{"env_id":"b"}]"#, "entry 1 has no destination"),
        (r#"[{"env_id":"a","destination":null}]"#, "entry 0 has no destination"),
        (r#"[{"env_id":"a","destination":"a"}]"#, "HOST:PORT"),
        ("[{\"env_id\":\"a\\nb\",\"destination\":\"a:1\"}]", "control character"),
    ] {
        let error = read(body.as_bytes()).expect_err(body).to_string();
        assert!(error.contains(words), "{body}: {error}");
    }
}

#[test]
fn put_get_delete() {
    let table = Table::default();
    let entry =
        |env: &str, to: &str| Entry { env_id: env.parse().expect("a name"), destination: to.to_owned() };
    table.put(vec![entry("a", "x:1"), entry("b", "x:2"), entry("a", "x:3")]).expect("room");
    assert_eq!(table.get("a").as_deref(), Some("x:3"));
    table.put(vec![entry("b", "x:4")]).expect("room");
    assert_eq!(table.get("b").as_deref(), Some("x:4"));
    assert!(table.delete("a"));
    assert!(!table.delete("a"), "nothing is left of it");
    assert_eq!((table.get("a"), table.get("c")), (None, None));
}
