use std::{cell::RefCell, collections::VecDeque, future::pending, rc::Rc};

use super::*;

/// What one of the ends does next.
enum Deed {
    ServerSays(&'static [u8]),
    /// It was told of, and nothing is there.
    Nothing,
    ServerEnds,
    ServerGone,
    /// The server says something, and the client cannot be told.
    ClientGone,
    ClientSays(Vec<u8>),
    ClientEnds,
    ClientFails,
}

/// What both ends have yet to do, one after another, the client last; and what the client was told.
#[derive(Default)]
struct Script {
    deeds: VecDeque<Deed>,
    told: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// One of them.
struct Scripted(Side, Rc<RefCell<Script>>);

impl Scripted {
    fn next(&self) -> Option<Deed> {
        self.1.borrow_mut().deeds.pop_front()
    }
}

impl End for Scripted {
    type Source<'a> = &'a mut Self;

    fn source(&mut self) -> &mut Self {
        self
    }

    async fn readable(&self) -> io::Result<()> {
        let side = match self.1.borrow().deeds.front() {
            Some(Deed::ClientSays(_) | Deed::ClientEnds | Deed::ClientFails) => Side::Client,
            _ => Side::Server,
        };
        if side == self.0 { Ok(()) } else { pending().await }
    }

    async fn pass_on(&self, client: &mut Self) -> Result<usize, Gone> {
        match self.next() {
            Some(Deed::ServerSays(bytes)) => {
                client.1.borrow_mut().told.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Some(Deed::ServerEnds) => Ok(0),
            Some(Deed::Nothing) => Err(Gone::Server(io::ErrorKind::WouldBlock.into())),
            Some(Deed::ClientGone) => Err(Gone::Client(io::ErrorKind::BrokenPipe.into())),
            _ => Err(Gone::Server(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl HeadSource for &mut Scripted {
    type Deadline = ();

    fn after(&self, _: Duration) {}

    async fn read(&mut self, into: &mut BytesMut, _: usize, (): ()) -> Option<io::Result<usize>> {
        match self.next()? {
            Deed::ClientSays(bytes) => {
                into.extend_from_slice(&bytes);
                Some(Ok(bytes.len()))
            }
            Deed::ClientEnds => Some(Ok(0)),
            _ => Some(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

fn context() -> Context {
    Context::for_env(&"pr-1".parse().expect("a name"))
}

/// What follows, what is left in the head, and what the client was told.
async fn after(deeds: impl IntoIterator<Item = Deed>) -> (Next, Vec<u8>, Vec<u8>) {
    let script = Rc::new(RefCell::new(Script { deeds: deeds.into_iter().collect(), told: Vec::new() }));
    let [mut client, server] = [Side::Client, Side::Server].map(|side| Scripted(side, Rc::clone(&script)));
    let (mut head, carried) = (BytesMut::new(), AtomicU64::new(0));
    let word = first_word(&mut client, &server, &mut head, &carried, Duration::from_secs(1)).await;
    let told = script.take().told;
    assert_eq!(carried.into_inner(), told.len() as u64);
    (word.decide("that"), head.to_vec(), told)
}

#[tokio::test]
async fn a_client_that_has_no_header_stays_where_it_is() {
    let says = |bytes: &[u8]| Deed::ClientSays(bytes.to_vec());
    assert_eq!(after([says(b"hello")]).await, (Next::Stays, b"hello".to_vec(), vec![]));
    let greeted = [Deed::Nothing, Deed::ServerSays(b"220 "), Deed::ServerSays(b"hi"), says(b"EHLO")];
    assert_eq!(after(greeted).await, (Next::Stays, b"EHLO".to_vec(), b"220 hi".to_vec()));
    assert_eq!(after([Deed::ClientEnds]).await, (Next::Stays, vec![], vec![]));
    assert_eq!(after([Deed::ServerEnds]).await, (Next::Stays, vec![], vec![]));
    let both = [Deed::ServerSays(b"bye"), Deed::ServerEnds];
    assert_eq!(after(both).await, (Next::Stays, vec![], b"bye".to_vec()));
}

#[tokio::test]
async fn a_header_is_followed_unless_the_server_has_spoken() {
    let context = context();
    let bytes = [context.wire(), b"hello"].concat();
    for cut in 1..bytes.len() {
        let parts = || [&bytes[..cut], &bytes[cut..]].map(|part| Deed::ClientSays(part.to_vec()));
        let (next, head, told) = after(parts()).await;
        // Once the header is whole nothing more is read.
        let read = cut.checked_sub(context.wire().len()).unwrap_or(5);
        assert_eq!((next, &*head, &*told), (Next::Anew(context.clone()), &b"hello"[..read], &b""[..]));
        let (next, _, told) = after([Deed::ServerSays(b"hi")].into_iter().chain(parts())).await;
        let why = "a header came after the server had spoken; that waits for it".to_owned();
        assert_eq!((next, &*told), (Next::Ends(Outcome::LateHeader, why), &b"hi"[..]), "cut at {cut}");
    }
}

#[tokio::test]
async fn an_end_is_whose_it_was() {
    let cut = || Deed::ClientSays(context().wire()[..9].to_vec());
    for (deeds, outcome) in [
        (vec![Deed::ServerGone], Outcome::UpstreamReset),
        (vec![Deed::ServerSays(b"hi"), Deed::ServerGone], Outcome::UpstreamReset),
        (vec![Deed::ClientGone], Outcome::ClientReset),
        (vec![Deed::ClientFails], Outcome::ClientReset),
        (vec![cut(), Deed::ClientFails], Outcome::ClientReset),
        (vec![cut(), Deed::ClientEnds], Outcome::BadHeader),
        (vec![cut()], Outcome::BadHeader),
    ] {
        let (next, ..) = after(deeds).await;
        assert!(matches!(&next, Next::Ends(found, _) if *found == outcome), "{next:?}, not {outcome:?}");
    }
}
