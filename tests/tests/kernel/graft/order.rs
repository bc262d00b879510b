//! Every byte arrives, in order, whatever the sizes, the pauses and the ways to wait.

use testbed::{Talker, require_privilege};

use super::Grafted;
use crate::common::{Result, access, emulated, expect, scaled};

const MODES: [&str; 3] = ["blocking", "level", "edge"];

/// Both ends stream at once, with sizes and pauses of many seeds. The agent sees to it that much of it is grafted, and that
/// much is not: the ends are in no step with each other.
#[test]
fn any_sizes_and_pauses_in_both_directions() -> Result {
    require_privilege!(Ok(()));
    for v6 in [false, true] {
        let it = Grafted::with("graft-order", "graft: always", v6)?;
        let rounds = if emulated() { 2 } else { 4 };
        let size = scaled(8_000_000);
        let mut grafted = (0, 0);
        for mode in MODES {
            let ends = format!(
                "--send {size} --expect {size} --mode {mode} --max-write 200000 --max-read 200000 \
                 --write-pause-us 300 --read-pause-us 300"
            );
            let server = it.serve(&format!("{ends} --seed 77"))?;
            for round in 0..rounds {
                let outcome = it.exchange(&server, round, &format!("{ends} --seed {round}"))?;
                let (up, down) = outcome.whole().grafted();
                grafted = (grafted.0 + up, grafted.1 + down);
            }
        }
        assert!(grafted.0 > 0 && grafted.1 > 0, "{grafted:?}");
    }
    Ok(())
}

#[test]
fn small_messages_both_ways() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-small")?;
    let size = scaled(200_000);
    for mode in MODES {
        let ends = format!("--send {size} --expect {size} --mode {mode} --max-write 16 --max-read 4096");
        let server = it.serve(&ends)?;
        it.exchange_until_grafted(&server, &ends)?;
    }
    Ok(())
}

#[test]
fn questions_and_answers_are_all_grafted() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-talk")?;
    let (server, client) = (Talker::in_pod(&it.server_pod)?, Talker::in_pod(&it.scene.client)?);
    let listener = server.listen(it.at)?;
    let (client, server) = (client.open(it.vip)?, server.accept(listener)?);
    let local = client.names()?.local;
    for round in 0..50 {
        let text = format!("round {round} ").repeat(1 + round * 20);
        client.send(text.as_bytes())?;
        assert_eq!(server.receive(text.len())?.text(), text);
        server.send(text.as_bytes())?;
        assert_eq!(client.receive(text.len())?.text(), text);
    }
    client.finish()?;
    assert!(server.receive(1)?.eof);
    server.finish()?;
    assert!(client.receive(1)?.eof);
    let line = access(&it.agent, local)?;
    expect(&line, &[("outcome", "ok")]);
    // The first ones may have met an agent that had not begun.
    let total = line["bytes_up"].as_u64().unwrap_or(0);
    assert_eq!(line["bytes_up"], line["bytes_down"], "{line}");
    for field in ["grafted_up", "grafted_down"] {
        assert!(line[field].as_u64().is_some_and(|grafted| grafted > total / 2), "{line}");
    }
    Ok(())
}

#[test]
fn what_is_not_to_be_grafted_is_not() -> Result {
    require_privilege!(Ok(()));
    let ends = "--send 3000000 --expect 3000000 --mode edge";
    let always = Grafted::with("graft-always", "graft: always", false)?;
    let connections = always.exchange_until_grafted(&always.serve(ends)?, ends)?.len();
    let never = Grafted::with("graft-never", "graft: never", false)?;
    let server = never.serve(ends)?;
    for number in 0..connections {
        let outcome = never.exchange(&server, number, ends)?;
        assert_eq!(outcome.whole().grafted(), (0, 0), "{}", outcome.line);
    }
    Ok(())
}
