use super::*;
use crate::doctor::check::Verdict;

fn failed<T>() -> Result<T, String> {
    Err("EINVAL".to_owned())
}

fn pushed() -> Vec<u8> {
    [MARK.as_slice(), &message(PUSH)].concat()
}

#[test]
fn push_is_what_arrives() {
    for (arrived, expected) in [
        (Ok(pushed()), Verdict::Ok),
        (Ok(message(PUSH)), Verdict::Missing),
        (Ok([&[0; 8], message(PUSH).as_slice()].concat()), Verdict::Missing),
        (Ok(Vec::new()), Verdict::Missing),
        (failed(), Verdict::Unknown),
    ] {
        assert_eq!(push_verdict(&arrived).verdict, expected, "{arrived:?}");
    }
}

#[test]
fn an_untouched_message_proves_a_pop_only_where_push_works() {
    for (push, pop, expected) in [
        (Ok(pushed()), Ok(message(PUSH_POP)), Verdict::Ok),
        (Ok(pushed()), Ok([&[0; 8], message(PUSH_POP).as_slice()].concat()), Verdict::Missing),
        (Ok(pushed()), failed(), Verdict::Unknown),
        (Ok(message(PUSH)), Ok(message(PUSH_POP)), Verdict::Unknown),
        (failed(), Ok(message(PUSH_POP)), Verdict::Unknown),
    ] {
        assert_eq!(pop_verdict(&push, &pop).verdict, expected, "{push:?} {pop:?}");
    }
}

fn queue_of(before: Waits, enrolled: Waits, after: Waits, sent_after: Read) -> Queue {
    Queue { before, enrolled, after, sent_after }
}

#[test]
fn fionread_is_truthful_only_if_proven() {
    for (before, enrolled, expected) in [
        (Ok(6), Ok(6), Verdict::Ok),
        (Ok(6), Ok(0), Verdict::Degraded),
        (Ok(6), Ok(14), Verdict::Degraded),
        (Ok(6), failed(), Verdict::Degraded),
        (Ok(0), Ok(6), Verdict::Degraded),
        (failed(), Ok(6), Verdict::Degraded),
    ] {
        let queue = queue_of(before, enrolled, failed(), failed());
        assert_eq!(fionread_verdict(&queue).verdict, expected, "{:?} {:?}", queue.before, queue.enrolled);
    }
}

#[test]
fn a_socket_has_left_when_nothing_of_the_map_is_left() {
    for (enrolled, after, sent, expected) in [
        (Ok(0), Ok(6), Ok(message(PUSH)), Verdict::Ok),
        (Ok(6), Ok(6), Ok(message(PUSH)), Verdict::Ok),
        (Ok(0), Ok(6), Ok(pushed()), Verdict::Missing),
        (Ok(0), Ok(0), Ok(message(PUSH)), Verdict::Missing),
        (failed(), Ok(6), Ok(message(PUSH)), Verdict::Unknown),
        (Ok(0), failed(), Ok(message(PUSH)), Verdict::Unknown),
        (Ok(0), Ok(6), failed(), Verdict::Unknown),
    ] {
        let queue = queue_of(Ok(6), enrolled, after, sent);
        assert_eq!(unenrol_verdict(&queue).verdict, expected, "{:?} {:?}", queue.after, queue.sent_after);
    }
}

#[test]
fn plain_connections_tell_the_truth() {
    let connection = Connection::open().unwrap();
    assert_eq!(connection.waiting(WAITING), Ok(TRUTH));
    connection.send(&message(PUSH)).unwrap();
    assert_eq!(connection.finish(), Ok(message(PUSH)));
}

#[test]
fn redirection_works_if_all_of_it_arrives_at_the_other_connection() {
    let whole = || message(REDIRECT);
    for (arrived, expected) in [
        (Ok([Vec::new(), whole()]), Verdict::Ok),
        (Ok([whole(), Vec::new()]), Verdict::Missing),
        (Ok([whole(), whole()]), Verdict::Missing),
        (Ok([Vec::new(), Vec::new()]), Verdict::Missing),
        (Ok([Vec::new(), whole()[1..].to_vec()]), Verdict::Missing),
        (Err("EINVAL".to_owned()), Verdict::Unknown),
    ] {
        assert_eq!(redirect_verdict(&arrived).verdict, expected, "{arrived:?}");
    }
}

#[test]
fn a_blocking_read_goes_on_only_if_proven() {
    for (found, expected) in [
        (Ok(true), Verdict::Ok),
        (Ok(false), Verdict::Degraded),
        (Err(io::ErrorKind::TimedOut.into()), Verdict::Degraded),
    ] {
        assert_eq!(blocking_verdict(found).verdict, expected);
    }
}
