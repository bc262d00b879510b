//! Upstream sockets of a workload, made ahead of need.
//!
//! A socket for another network namespace takes the one thread that may go there, and two changes of threads are a good part
//! of what a short connection costs. So a workload that is in use has some ready, and the thread makes many at a time.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use socket2::Socket;

use crate::intercept::netns::{Family, Netns, NetnsError, NetnsThread, upstream};

/// The most that are kept ready of a family. Each takes a descriptor, and 4 kB of the kernel.
const MOST: usize = 64;
/// How many are made for a workload that shows its first connection.
const FIRST: usize = 4;

/// The sockets of a workload.
#[derive(Debug)]
pub struct Sockets {
    thread: NetnsThread,
    netns: Arc<Netns>,
    v4: Arc<Mutex<Stock>>,
    v6: Arc<Mutex<Stock>>,
}

/// Those of one family.
#[derive(Debug, Default)]
struct Stock {
    ready: Vec<Socket>,
    /// How many are to be ready: twice as many after each time that half of them went, none when it is not in use.
    wanted: usize,
    being_made: bool,
    used: bool,
    closed: bool,
}

impl Sockets {
    /// None are made before the first is asked for.
    pub fn new(thread: NetnsThread, netns: Arc<Netns>) -> Self {
        Self { thread, netns, v4: Arc::default(), v6: Arc::default() }
    }

    /// An unconnected, non-blocking one: at once, if one is ready.
    pub async fn take(&self, family: Family) -> Result<io::Result<Socket>, NetnsError> {
        let stock = self.stock(family);
        let (ready, missing) = lock(stock).take();
        if missing > 0 {
            self.make(stock, family, missing)?;
        }
        match ready {
            Some(socket) => Ok(Ok(socket)),
            None => self.thread.socket(Arc::clone(&self.netns), family).await,
        }
    }

    /// To be called every few seconds: a workload that was not in use since the last time keeps none.
    pub fn trim(&self) {
        lock(&self.v4).trim();
        lock(&self.v6).trim();
    }

    /// Closes them all, for good: they would keep the namespace of a workload that is gone.
    pub fn close(&self) {
        for stock in [&self.v4, &self.v6] {
            let mut stock = lock(stock);
            stock.closed = true;
            stock.ready.clear();
        }
    }

    fn stock(&self, family: Family) -> &Arc<Mutex<Stock>> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn make(&self, stock: &Arc<Mutex<Stock>>, family: Family, count: usize) -> Result<(), NetnsError> {
        let stock = Arc::clone(stock);
        self.thread.begin(Arc::clone(&self.netns), move |entered| {
            // What fails here fails again for the connection that finds none ready, and is told there.
            let made: Vec<_> = match entered {
                Ok(()) => (0..count).map_while(|_| upstream(family).ok()).collect(),
                Err(_) => Vec::new(),
            };
            lock(&stock).add(made);
        })
    }
}

impl Stock {
    /// One that is ready, and how many are to be made.
    fn take(&mut self) -> (Option<Socket>, usize) {
        self.used = true;
        let ready = self.ready.pop();
        if self.closed || self.being_made || self.ready.len() > self.wanted / 2 {
            return (ready, 0);
        }
        self.wanted = (self.wanted * 2).clamp(FIRST, MOST);
        self.being_made = true;
        (ready, self.wanted - self.ready.len())
    }

    fn add(&mut self, made: Vec<Socket>) {
        self.being_made = false;
        if !self.closed {
            self.ready.extend(made);
        }
    }

    fn trim(&mut self) {
        if !std::mem::take(&mut self.used) {
            self.wanted = 0;
            self.ready.clear();
        }
    }
}

fn lock(stock: &Mutex<Stock>) -> MutexGuard<'_, Stock> {
    stock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what the thread would do.
    fn made(stock: &mut Stock, count: usize) {
        stock.add((0..count).map(|_| upstream(Family::V4).expect("a socket")).collect());
    }

    #[test]
    fn a_stock_grows_with_its_use_and_no_further_than_its_bound() {
        let mut stock = Stock::default();
        let (none, count) = stock.take();
        assert!(none.is_none() && count == FIRST);
        assert_eq!(stock.take().1, 0, "they are being made");
        made(&mut stock, count);
        for _ in 0..1000 {
            let (ready, count) = stock.take();
            assert!(ready.is_some());
            if count > 0 {
                made(&mut stock, count);
            }
            assert!(stock.ready.len() <= MOST);
        }
        assert_eq!(stock.wanted, MOST);
    }

    #[test]
    fn a_stock_that_is_not_used_goes() {
        let mut stock = Stock::default();
        let (_, count) = stock.take();
        made(&mut stock, count);
        stock.trim();
        assert_eq!(stock.ready.len(), FIRST, "used a moment ago");
        stock.trim();
        assert!(stock.ready.is_empty());
        let (none, count) = stock.take();
        assert!(none.is_none() && count == FIRST);
    }

    #[test]
    fn what_arrives_after_the_end_is_closed() {
        let mut stock = Stock::default();
        let (_, count) = stock.take();
        stock.closed = true;
        made(&mut stock, count);
        assert!(stock.ready.is_empty());
        assert_eq!(stock.take().1, 0);
    }

    #[test]
    fn a_failure_to_make_some_does_not_end_making() {
        let mut stock = Stock::default();
        assert_eq!(stock.take().1, FIRST);
        made(&mut stock, 0);
        assert!(stock.take().1 > 0);
    }
}
