use std::{
    future::{pending, poll_fn},
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    task::Poll,
    thread,
    time::Duration,
};

use super::*;

/// A loop on a thread of its own, and what ends it.
fn start() -> (Arc<Mailbox>, thread::JoinHandle<()>) {
    let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
    let of_thread = Arc::clone(&mailbox);
    let run = move || EventLoop::new(of_thread).expect("an epoll").run().expect("it works");
    (mailbox, thread::spawn(run))
}

/// A connection over loopback, the second end of which does not block.
fn pair() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (own, _) = listener.accept().expect("it has connected");
    own.set_nonblocking(true).expect("a socket");
    (peer, own.into())
}

/// Lets everybody else have a turn.
async fn turn() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn tasks_take_turns() {
    let seen = block_on(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let done = Rc::new(Cell::new(0));
        for name in ['a', 'b'] {
            let (seen, done) = (Rc::clone(&seen), Rc::clone(&done));
            spawn(async move {
                for _ in 0..3 {
                    seen.borrow_mut().push(name);
                    turn().await;
                }
                done.set(done.get() + 1);
            });
        }
        while done.get() < 2 {
            turn().await;
        }
        seen.take()
    });
    assert_eq!(seen.iter().filter(|name| **name == 'a').count(), 3);
    assert!(seen.windows(2).skip(1).all(|two| two[0] != two[1]), "{seen:?}");
}

#[test]
fn a_task_is_begun_and_woken_from_other_threads() {
    let (mailbox, running) = start();
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<u32>();
    let (sum_tx, sum_rx) = std::sync::mpsc::channel();
    mailbox.spawn(move || {
        Box::pin(async move {
            let mut sum = 0;
            while let Some(number) = rx.recv().await {
                sum += number;
            }
            sum_tx.send(sum).expect("somebody waits");
        })
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| tx.send(1).expect("it is received")));
        }
    });
    drop(tx);
    assert_eq!(sum_rx.recv(), Ok(40_000));
    mailbox.stop();
    running.join().expect("no panic");
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    let (mailbox, running) = start();
    mailbox.spawn(|| Box::pin(async { panic!("this one is part of the test") }));
    let (tx, rx) = std::sync::mpsc::channel();
    mailbox.spawn(move || Box::pin(async move { tx.send(()).expect("somebody waits") }));
    assert_eq!(rx.recv(), Ok(()));
    mailbox.stop();
    running.join().expect("no panic");
}

#[test]
fn the_end_drops_what_still_waits() {
    let (mailbox, running) = start();
    let (tx, rx) = std::sync::mpsc::channel::<()>();
    mailbox.spawn(move || {
        Box::pin(async move {
            let _held = tx;
            pending::<()>().await;
        })
    });
    mailbox.stop();
    running.join().expect("no panic");
    assert!(rx.recv().is_err(), "what the task held is gone");
}

#[test]
fn wake_all_has_everybody_look() {
    let (mailbox, running) = start();
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (tx, rx) = std::sync::mpsc::channel();
    for _ in 0..3 {
        let (flag, tx) = (Arc::clone(&flag), tx.clone());
        mailbox.spawn(move || {
            Box::pin(async move {
                let is_set = |_: &mut std::task::Context<'_>| {
                    if flag.load(std::sync::atomic::Ordering::SeqCst) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                };
                poll_fn(is_set).await;
                tx.send(()).expect("somebody waits");
            })
        });
    }
    flag.store(true, std::sync::atomic::Ordering::SeqCst);
    mailbox.wake_all();
    assert_eq!(rx.iter().take(3).count(), 3);
    mailbox.stop();
    running.join().expect("no panic");
}

#[test]
fn timers_come_in_order_and_not_before_their_time() {
    let start = Instant::now();
    let order = block_on(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for millis in [30, 10, 20] {
            let order = Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                order.borrow_mut().push(millis);
            });
        }
        while order.borrow().len() < 3 {
            sleep(Duration::from_millis(1)).await;
        }
        order.take()
    });
    assert_eq!(order, [10, 20, 30]);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_timeout_is_for_what_does_not_come() {
    block_on(async {
        let soon = || Instant::now() + Duration::from_millis(5);
        assert_eq!(timeout(soon(), pending::<()>()).await, Err(timers::Elapsed));
        assert_eq!(timeout(soon(), async { 7 }).await, Ok(7));
        let home = EventLoop::here();
        assert!(home.timers.next().is_none(), "no timer outlives who waited for it");
    });
}

#[test]
fn a_stream_is_told_of_once_and_its_end_stays() {
    block_on(async {
        let (mut peer, own) = pair();
        let source = Source::new(&own, Mode::Stream).expect("room in epoll");
        peer.write_all(b"x").expect("connected");
        poll_fn(|cx| source.poll(cx, Ready::IN)).await;
        source.clear(Ready::IN);
        // Nothing new: the byte is still there, and not told of again.
        let again =
            timeout(Instant::now() + Duration::from_millis(10), poll_fn(|cx| source.poll(cx, Ready::IN)));
        assert!(again.await.is_err());
        drop(peer);
        let ready = poll_fn(|cx| source.poll(cx, READABLE)).await;
        assert!(ready.contains(Ready::RDHUP));
        source.clear(Ready::IN);
        assert!(poll_fn(|cx| Poll::Ready(source.poll(cx, READABLE))).await.is_ready());
    });
}

#[test]
fn a_listener_is_told_of_as_long_as_somebody_waits() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let clients = [(); 2].map(|()| TcpStream::connect(to).expect("loopback"));
        let source = Source::new(&listener, Mode::Listener).expect("room in epoll");
        for _ in &clients {
            poll_fn(|cx| source.poll(cx, READABLE)).await;
            source.clear(READABLE);
            listener.accept().expect("somebody waits");
        }
        let third =
            timeout(Instant::now() + Duration::from_millis(10), poll_fn(|cx| source.poll(cx, READABLE)));
        assert!(third.await.is_err());
        source.remove(&listener).expect("it is there");
    });
}

/// What was closed is told of to nobody, whoever has its place now.
#[test]
fn an_event_of_the_last_one_is_not_for_the_next_of_its_place() {
    block_on(async {
        let home = EventLoop::here();
        let ((mut peer, own), (_other_peer, other)) = (pair(), pair());
        let source = Source::new(&own, Mode::Stream).expect("room in epoll");
        let index = source.index;
        peer.write_all(b"x").expect("connected");
        drop(source);
        let next = Source::new(&other, Mode::Stream).expect("room in epoll");
        assert_eq!(next.index, index);
        // The first one is still open, and has something to tell.
        turn().await;
        turn().await;
        assert!(!home.poller.is_ready(index, Ready::IN));
        drop(own);
    });
}
