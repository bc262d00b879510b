//! Every way to send first: one header in front, once, and every byte after it.

use testbed::{Deed, Form, Talker, Target, blob, require_privilege};

use super::{AUTO, Direct, last_told, pr_1};
use crate::common::{Result, expect, header, scaled};

/// Both the small and the large way, through the socket's buffers several times over.
fn sizes() -> [usize; 3] {
    [1, scaled(1_000_000), scaled(20_000_000)]
}

const FORMS: [Form; 9] = [
    Form::Write,
    Form::Writev(2),
    Form::Writev(1000),
    Form::Sendmsg(17),
    Form::Sendfile,
    Form::Splice,
    Form::Zerocopy,
    Form::More,
    Form::Nonblocking(4096),
];

/// One connection whose first send is `form` with `size` bytes, and a second send after it.
fn sends(it: &Direct, talker: &Talker, target: Target, form: Form, size: usize, front: &[u8]) -> Result {
    let number = it.server.count();
    let talk = talker.open(target)?;
    let said = talk.to(Deed::SendBlob(form, size))?;
    if form == Form::Zerocopy {
        assert!(said.value.is_some_and(|completions| completions > 0), "{said:?}");
    }
    assert_eq!(talk.receive(8)?.text(), "variant\n", "{form:?} of {size}");
    talk.send(b"and more")?;
    talk.finish()?;
    let said = talk.receive_all()?;
    assert!(said.eof && said.hex.is_empty(), "{form:?} of {size}: {said:?}");
    talk.close()?;
    let (got, end) = it.server.whole(number)?;
    let sent = got.strip_prefix(front).ok_or_else(|| format!("{form:?} of {size}: no header in front"))?;
    let first = sent.strip_suffix(b"and more").ok_or_else(|| format!("{form:?} of {size}: cut off"))?;
    assert_eq!((first.len(), blob::mismatch(0, first)), (size, None), "{form:?} of {size}");
    assert_eq!(end, "eof");
    Ok(())
}

#[test]
fn every_form_and_size_with_propagate() -> Result {
    require_privilege!(Ok(()));
    let it = Direct::new("forms", "propagate")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let mut count = 0;
    for form in FORMS {
        for size in sizes() {
            sends(&it, &talker, it.vip.into(), form, size, &pr_1())?;
            count += 1;
        }
    }
    let line = last_told(&it.agent, it.vip, count)?;
    expect(
        &line,
        &[
            ("path", "direct"),
            ("outcome", "routed"),
            ("reason", "variant"),
            ("environment", "pr-1"),
            ("header", "propagate"),
            ("backend", &it.server.at.to_string()),
        ],
    );
    Ok(())
}

#[test]
fn every_form_and_size_with_strip() -> Result {
    require_privilege!(Ok(()));
    let it = Direct::new("forms-strip", "strip")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    for form in FORMS {
        for size in [1, scaled(1_000_000)] {
            sends(&it, &talker, it.vip.into(), form, size, b"")?;
        }
    }
    let line = last_told(&it.agent, it.vip, FORMS.len() * 2)?;
    expect(&line, &[("path", "direct"), ("outcome", "routed"), ("reason", "variant")]);
    Ok(())
}

#[test]
fn every_family() -> Result {
    require_privilege!(Ok(()));
    for (policy, front) in [("propagate", pr_1()), ("strip", Vec::new())] {
        let it = Direct::new(&format!("families-{policy}"), policy)?;
        let talker = Talker::in_pod(&it.scene.client)?;
        for form in [Form::Write, Form::Sendfile, Form::Splice] {
            for target in [it.vip.into(), it.vip6.into(), Target::new(it.vip).mapped()] {
                sends(&it, &talker, target, form, 5000, &front)?;
            }
        }
    }
    Ok(())
}

#[test]
fn further_keys_are_in_the_header() -> Result {
    require_privilege!(Ok(()));
    let filler = "x".repeat(255 - "Env-Id:pr-1\r\nTenant:".len());
    let cases = [("acme", Form::Write), (filler.as_str(), Form::Splice)];
    for (tenant, form) in cases {
        let it = Direct::with("keys", "propagate", &format!("{AUTO}, keys: {{tenant: {tenant}}}"))?;
        let talker = Talker::in_pod(&it.scene.client)?;
        let front = header(&[("Env-Id", "pr-1"), ("Tenant", tenant)]);
        for size in [1, 100_000] {
            sends(&it, &talker, it.vip.into(), form, size, &front)?;
        }
    }
    Ok(())
}

/// Nobody has asked for a header before there is anything to put it in front of.
#[test]
fn who_sends_nothing_sends_no_header() -> Result {
    require_privilege!(Ok(()));
    let it = Direct::new("silent-direct", "propagate")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let talk = talker.open(it.vip)?;
    talk.finish()?;
    assert_eq!(talk.receive_all()?.text(), "variant\n");
    assert_eq!(it.server.whole(0)?, (Vec::new(), "eof".to_owned()));
    Ok(())
}
