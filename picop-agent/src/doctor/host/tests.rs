use clap::CommandFactory as _;

use super::*;
use crate::{cli::Cli, doctor::check::Verdict};

#[test]
fn kernels() {
    for (release, verdict) in [
        ("6.18.44-fc-v669", Verdict::Ok),
        ("6.1.0-49-amd64", Verdict::Ok),
        ("5.15.0-91-generic", Verdict::Degraded),
        ("6.0", Verdict::Degraded),
        ("5.14.0-503.el9.x86_64", Verdict::Degraded),
        ("4.19.0", Verdict::Degraded),
        ("", Verdict::Unknown),
        ("six", Verdict::Unknown),
        ("99999999999.1", Verdict::Unknown),
    ] {
        assert_eq!(kernel(release).verdict, verdict, "{release}");
    }
}

#[test]
fn btf_is_known_by_its_magic() {
    let good = [&0xeb9f_u16.to_ne_bytes()[..], &[0; 2048]].concat();
    assert_eq!(btf(Ok(good)).verdict, Verdict::Ok);
    assert_eq!(btf(Ok(b"\x7fELF".to_vec())).verdict, Verdict::Degraded);
    assert_eq!(btf(Ok(Vec::new())).verdict, Verdict::Degraded);
    assert_eq!(btf(Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Degraded);
}

#[test]
fn bpffs_is_known_by_its_magic() {
    assert_eq!(bpffs(Ok(0xcafe_4a11)).verdict, Verdict::Ok);
    assert_eq!(bpffs(Ok(0x6265_6572)).verdict, Verdict::Degraded, "sysfs");
    assert_eq!(bpffs(Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Degraded);
}

#[test]
fn each_capability_is_its_own_check() {
    for needed in &capabilities::NEEDED {
        let bit = 1_u64 << needed.bit;
        assert_eq!(capability(needed, &Ok(bit)).verdict, Verdict::Ok, "{}", needed.name);
        assert_eq!(capability(needed, &Ok(!bit)).verdict, Verdict::Missing, "{}", needed.name);
        let unreadable = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(capability(needed, &unreadable).verdict, Verdict::Unknown, "{}", needed.name);
        assert!(capability_spec(needed).found(capability(needed, &Ok(0))).blocks(), "{}", needed.name);
    }
}

#[test]
fn descriptors_are_counted_in_connections() {
    for (hard, verdict, connections) in [
        (None, Verdict::Ok, "no limit"),
        (Some(1_048_576), Verdict::Ok, "523776 relayed"),
        (Some(101_024), Verdict::Ok, "50000 relayed"),
        (Some(101_023), Verdict::Degraded, "49999 relayed"),
        (Some(0), Verdict::Degraded, "about 0 relayed"),
    ] {
        let finding = nofile(hard);
        assert_eq!(finding.verdict, verdict, "{hard:?}");
        assert!(finding.detail.contains(connections), "{}", finding.detail);
    }
}

#[test]
fn the_default_of_max_connections_is_that_of_run() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let argument = run.get_arguments().find(|a| a.get_long() == Some("max-connections")).unwrap();
    assert_eq!(argument.get_default_values(), [CONNECTIONS.to_string().as_str()]);
}

#[test]
fn backlogs() {
    assert_eq!(somaxconn(Ok("4096\n".into())).verdict, Verdict::Ok);
    assert_eq!(somaxconn(Ok("128\n".into())).verdict, Verdict::Degraded);
    assert_eq!(somaxconn(Ok("many\n".into())).verdict, Verdict::Unknown);
    assert_eq!(somaxconn(Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Unknown);
}
