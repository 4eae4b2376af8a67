//! One call of the kernel that wakes all the threads that a log write has answered.
//!
//! A plain thread that waits for a durable commit sleeps until the log write that carries it has ended. To wake each by itself took a shard two fifths of
//! its time, with 64 of them: a system call for each, at whose end whoever was woken may take the core from the shard that is to wake the others.
//! So those who are to be answered by one log write sleep on one word of memory, their *bell*, and hear it together.
//!
//! How it works:
//!
//! 1. A shard has [`BELLS_PER_SHARD`] bells, and goes on to the next one with each log write that it starts. Who sends a commit remembers the one
//!    that is current. That is a guess, kept with the claim to the answer ([`crate::answer`]): which log write a commit comes into is known only later.
//!    Those who remember one bell are mostly answered by one write. Who is not looks, and sleeps again.
//! 2. The word is an *eventcount*. Who waits reads it, looks whether the answer is there, leaving the bell's waker with it, and sleeps only if the word is what it was
//!    (`FUTEX_WAIT`: Franke, Russell and Kirkwood, "Fuss, Futexes and Furwocks", 2002).
//! 3. The answer, or the end of whoever was to give it, calls the waker. Within [`together`] that only notes the bell; else it rings at once. To ring is to
//!    change the word, and to wake all who sleep on it. So no wake is lost, whichever bell is remembered, and whoever shares it.
//!
//! Bells are the process's, not the engine's: an answer names one by its number, and keeps nothing alive.

use rustix::thread::futex;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};

/// Bells of a shard: more than the log writes that it mostly has in flight, and the group that gathers. With fewer, some wake for nothing.
pub(crate) const BELLS_PER_SHARD: u32 = 8;

/// Bells of the process. Once all were taken by shards, they are taken again: two shards that share one wake each other's clients for nothing.
const BELLS: u32 = 512;

const _: () = assert!(BELLS.is_multiple_of(BELLS_PER_SHARD));

static ALL: LazyLock<Box<[Bell]>> = LazyLock::new(|| (0..BELLS).map(Bell::new).collect());

/// The bells that are to ring at the end of [`together`]; none outside of it.
type Noted = Option<SmallVec<[Number; 8]>>;

thread_local! {
    static NOTED: RefCell<Noted> = const { RefCell::new(None) };
}

/// Which bell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Number(u32);

/// The bells of one shard; on a line of its own.
#[repr(align(64))]
pub(crate) struct Bells {
    first: u32,
    /// How often log writes were started, modulo 2^32.
    starts: AtomicU32,
}

impl Bells {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Bells { first: NEXT.fetch_add(BELLS_PER_SHARD, Ordering::Relaxed), starts: AtomicU32::new(0) }
    }

    /// The one for what is sent now.
    #[inline]
    pub(crate) fn current(&self) -> Number {
        // Any is right: it decides only who is woken with whom.
        let at = self.starts.load(Ordering::Relaxed) % BELLS_PER_SHARD;
        Number(self.first.wrapping_add(at) % BELLS)
    }

    /// The shard has started log writes: what is sent from here on will come with others.
    #[inline]
    pub(crate) fn go_on(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A word that threads sleep on, and what wakes them.
#[repr(align(64))]
struct Bell {
    rung: AtomicU32,
    waker: Waker,
}

impl Bell {
    fn new(number: u32) -> Self {
        Bell { rung: AtomicU32::new(0), waker: Waker::from(Arc::new(Ringer(Number(number)))) }
    }

    fn of(number: Number) -> &'static Bell {
        &ALL[number.0 as usize]
    }

    fn ring(&self) {
        // Release pairs with the load in `wait`: what was there to be seen when this was rung is seen by who hears it.
        self.rung.fetch_add(1, Ordering::Release);
        // It fails only for a word that is none.
        let _ = futex::wake(&self.rung, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

/// What rings a bell; on a line of its own, since it is counted who has it.
#[repr(align(64))]
struct Ringer(Number);

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let number = self.0;
        let note = |noted: &RefCell<Noted>| match &mut *noted.borrow_mut() {
            Some(noted) => {
                if !noted.contains(&number) {
                    noted.push(number);
                }
                true
            }
            None => false,
        };
        // A thread that is ending, and has no list any more, is in no `together`.
        if !NOTED.try_with(note).unwrap_or(false) {
            Bell::of(number).ring();
        }
    }
}

/// Answers, and rings the bells of all who were answered at the end, each once. Within another one, that one rings them.
pub(crate) fn together<T>(answer: impl FnOnce() -> T) -> T {
    /// Rings also where the answering panics: else nobody would wake those who are answered.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            let noted = NOTED.take();
            for number in noted.into_iter().flatten() {
                Bell::of(number).ring();
            }
        }
    }

    let outermost = NOTED.with_borrow_mut(|noted| {
        let outermost = noted.is_none();
        noted.get_or_insert_default();
        outermost
    });
    // Made only where it is wanted: one that is dropped rings.
    let _end = outermost.then(|| End);
    answer()
}

/// Sleeps until something is there, which `look` finds, leaving the waker with whoever will make it.
pub(crate) fn wait<T>(number: Number, mut look: impl FnMut(&Waker) -> Option<T>) -> T {
    let bell = Bell::of(number);
    loop {
        let rung = bell.rung.load(Ordering::Acquire);
        if let Some(found) = look(&bell.waker) {
            return found;
        }
        // It has rung since, or now, or a signal came: in each case it is looked again.
        let _ = futex::wait(&bell.rung, futex::Flags::PRIVATE, rung, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll};
    use std::thread;
    use std::time::Duration;
    use tokio::sync::oneshot;

    const LONG: Duration = Duration::from_secs(30);

    fn answer_of(number: Number, mut receiver: oneshot::Receiver<u32>) -> Option<u32> {
        wait(number, |waker| match Pin::new(&mut receiver).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(answer) => Some(answer.ok()),
            Poll::Pending => None,
        })
    }

    /// Threads that each send something to be answered, and wait for it; who answers gets what is sent.
    fn clients(
        bells: &'static Bells,
        threads: u32,
        rounds: u32,
    ) -> (mpsc::Receiver<(u32, oneshot::Sender<u32>)>, mpsc::Receiver<u32>) {
        let ((send, sent), (done, ended)) = (mpsc::channel(), mpsc::channel());
        for thread in 0..threads {
            let (send, done) = (send.clone(), done.clone());
            thread::spawn(move || {
                for round in 0..rounds {
                    let (reply, receiver) = oneshot::channel();
                    let bell = bells.current();
                    let question = thread << 16 | round;
                    send.send((question, reply)).unwrap();
                    assert_eq!(answer_of(bell, receiver), Some(question));
                }
                done.send(thread).unwrap();
            });
        }
        (sent, ended)
    }

    #[test]
    fn everyone_who_is_answered_wakes_whatever_bell_they_remember() {
        const THREADS: u32 = 16;
        const ROUNDS: u32 = 500;
        let bells: &'static Bells = Box::leak(Box::new(Bells::new()));
        let (sent, ended) = clients(bells, THREADS, ROUNDS);
        for write in 0.. {
            // As a shard does: what has come is one group, and the next bell is current from here on.
            let Ok(first) = sent.recv_timeout(LONG) else { break };
            let group: Vec<_> = std::iter::once(first).chain(sent.try_iter()).collect();
            // Not always: some remember the bell of the group before then.
            if write % 3 > 0 {
                bells.go_on();
            }
            together(|| group.into_iter().for_each(|(question, reply)| reply.send(question).unwrap()));
        }
        let ended: Vec<_> = ended.try_iter().collect();
        assert_eq!(ended.len(), THREADS as usize, "some sleep for ever");
    }

    #[test]
    fn a_bell_that_rings_between_a_look_and_the_sleep_is_heard() {
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut looks = 0;
            wait(Bells::new().current(), |waker| {
                looks += 1;
                if looks == 1 {
                    waker.wake_by_ref();
                }
                (looks > 1).then_some(())
            });
            done.send(()).unwrap();
        });
        assert_eq!(ended.recv_timeout(LONG), Ok(()));
    }

    #[test]
    fn within_another_an_answering_leaves_its_bells_to_that() {
        let bell = Bell::of(Bells::new().current());
        let rung = || bell.rung.load(Ordering::Relaxed);
        let before = rung();
        together(|| {
            bell.waker.wake_by_ref();
            together(|| bell.waker.wake_by_ref());
            assert_eq!(rung(), before);
        });
        assert_eq!(rung(), before + 1);
    }

    #[test]
    fn who_is_never_answered_wakes_too_and_so_do_those_of_an_answering_that_panics() {
        let bells: &'static Bells = Box::leak(Box::new(Bells::new()));
        let (reply, receiver) = oneshot::channel();
        let bell = bells.current();
        let waiting = thread::spawn(move || answer_of(bell, receiver));
        thread::sleep(Duration::from_millis(20));
        drop(reply);
        assert_eq!(waiting.join().unwrap(), None);

        let (sent, ended) = clients(bells, 1, 1);
        let (question, reply) = sent.recv_timeout(LONG).unwrap();
        thread::sleep(Duration::from_millis(20));
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            together(|| {
                reply.send(question).unwrap();
                panic!("on purpose");
            })
        }));
        assert!(panics.is_err());
        assert_eq!(ended.recv_timeout(LONG), Ok(0));
        // And outside of it bells ring at once again.
        let (sent, ended) = clients(bells, 1, 1);
        let (question, reply) = sent.recv_timeout(LONG).unwrap();
        thread::sleep(Duration::from_millis(20));
        reply.send(question).unwrap();
        assert_eq!(ended.recv_timeout(LONG), Ok(0));
    }

    #[test]
    fn a_shard_goes_through_its_bells_and_shares_them_with_no_other() {
        let (one, other) = (Bells::new(), Bells::new());
        let all = |bells: &Bells| -> Vec<u32> {
            (0..2 * BELLS_PER_SHARD)
                .map(|_| {
                    bells.go_on();
                    bells.current().0
                })
                .collect()
        };
        let (one, other) = (all(&one), all(&other));
        let half = BELLS_PER_SHARD as usize;
        assert_eq!(one[..half], one[half..]);
        assert!(one.iter().all(|number| !other.contains(number)));
        assert!((1..half).all(|at| !one[..at].contains(&one[at])));
    }
}
