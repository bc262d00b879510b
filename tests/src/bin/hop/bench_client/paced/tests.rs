use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::*;

const BODY: &str = "seven";

/// Answers one connection after the other, each as often as it asks; the n-th answer (after the one of the warm-up) after a
/// pause.
fn server(pauses: &'static [u64]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let pause =
            |answered: usize| answered.checked_sub(1).and_then(|n| pauses.get(n)).copied().unwrap_or(0);
        let mut answered: usize = 0;
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buf = [0; 1024];
            while stream.read(&mut buf).is_ok_and(|n| n > 0) {
                thread::sleep(Duration::from_millis(pause(answered)));
                answered += 1;
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
                if stream.write_all(response.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    address
}

fn plan(to: SocketAddr, rate: f64, requests: u64, keep_alive: bool) -> Plan {
    Plan {
        targets: vec![Target { to, body: BODY.to_owned() }],
        rate,
        requests,
        clients: 1,
        keep_alive,
        at_once: false,
        request: "GET / HTTP/1.1\r\n\r\n".to_owned(),
    }
}

#[test]
fn a_slow_answer_is_on_the_account_of_those_that_wait_behind_it() {
    // One that takes 200 ms, and a request every 10 ms: the second was meant to be sent 190 ms before it could be.
    for keep_alive in [true, false] {
        let paced = run(&plan(server(&[200]), 100.0, 10, keep_alive), b"").expect("answers");
        assert_eq!((paced.whole.len(), paced.missed), (10, 0));
        for (number, whole) in paced.whole.iter().enumerate() {
            let least = 200_u32.saturating_sub(10 * u32::try_from(number).expect("few")) * 1_000_000;
            assert!(*whole >= least, "request {number} took {whole} ns, at least {least}");
        }
        assert_eq!(paced.late.len(), 1, "the others waited for their client, not for this program");
    }
}

#[test]
fn what_is_not_answered_in_time_is_missed() {
    let paced = run(&plan(server(&[60_000]), 100.0, 10, true), b"").expect("no answers");
    assert_eq!((paced.whole.len(), paced.missed), (0, 10));
}

#[test]
fn an_answer_of_somebody_else_is_an_error() {
    let mut wrong = plan(server(&[]), 100.0, 1, true);
    wrong.targets[0].body = "eight".to_owned();
    let error = format!("{:#}", run(&wrong, b"").expect_err("another body"));
    assert!(error.contains("wrong way"), "{error}");
}

#[test]
fn moments_are_even_or_all_clients_the_same() {
    let mut plan = plan(server(&[]), 1000.0, 8, true);
    plan.clients = 4;
    let at = |run: &Run<'_>| (0..8).map(|n| (run.due(n) - run.began).as_micros()).collect::<Vec<_>>();
    assert_eq!(at(&Run::new(&plan, b"").expect("a run")), [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    plan.at_once = true;
    assert_eq!(at(&Run::new(&plan, b"").expect("a run")), [0, 0, 0, 0, 4000, 4000, 4000, 4000]);
}
