use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

/// A certificate for a name, and its key, in PEM.
fn pair(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).expect("a pair");
    (cert.pem(), signing_key.serialize_pem())
}

#[test]
fn what_cannot_be_used_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let read = || Certificate::read(cert.clone(), key.clone()).map(drop);
    let (one, own_key) = pair("one.example.com");
    let (_, other_key) = pair("two.example.com");
    assert!(matches!(read(), Err(TlsError::Read { path, .. }) if path == cert));
    fs::write(&cert, &one).expect("written");
    assert!(matches!(read(), Err(TlsError::Read { path, .. }) if path == key));
    fs::write(&key, &one).expect("written");
    assert!(matches!(read(), Err(TlsError::Pem { path, what: "private key", .. }) if path == key));
    fs::write(&key, other_key).expect("written");
    assert!(matches!(read(), Err(TlsError::Pair { .. })));
    fs::write(&cert, "").expect("written");
    assert!(matches!(read(), Err(TlsError::Pem { path, what: "certificate", .. }) if path == cert));
    fs::write(&cert, &one).expect("written");
    fs::write(&key, own_key).expect("written");
    read().expect("a pair");
}
