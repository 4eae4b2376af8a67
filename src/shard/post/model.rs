//! The protocol of sleeping and waking, run by loom: every order of its threads' steps, and every value that a weak
//! memory model lets them read.
//!
//! The code is the engine's ([`super::Post`]); only its parts are stand-ins. The queue promises no more order
//! than a release and an acquire, less than the real one does, so that nothing but the protocol's own fences can
//! keep it right. What must hold, in every run:
//!
//! * what was posted is taken up, with no other post to help; whoever waits for room is woken when there is some;
//! * each turn that the shard takes because it may not sleep finds something to do: it is never busy in vain;
//! * each post sends a wake or saves one, and none is sent to a shard that does not set out to sleep;
//! * after closing, nothing is left in the queue, and everyone who waits is told.
//!
//! The last tests take a fence away, or the order of two steps, and see that loom notices.

use super::{Alarm, Number, Parts, Post, Queue, Refused, Room};
use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

/// How many switches away from a thread that could go on loom tries.
const PREEMPTIONS_MAX: usize = 3;
/// The same in larger models, which would take minutes otherwise.
const PREEMPTIONS_OF_MANY_MAX: usize = 2;

/// The parts, as loom knows them; `FENCED` without does nothing in place of a fence.
struct Modelled<const FENCED: bool>;

impl<const FENCED: bool> Parts for Modelled<FENCED> {
    type Queue<T> = Line<T>;
    type Room = Places;
    type Number = AtomicUsize;
    type Alarm = Bell;

    fn fence() {
        if FENCED {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }
}

/// A queue that may look empty or short to who has not synchronized with who pushed.
struct Line<T> {
    items: Mutex<VecDeque<T>>,
    pushed: AtomicUsize,
    popped: AtomicUsize,
    capacity: usize,
}

impl<T> Queue<T> for Line<T> {
    fn new(capacity: usize) -> Self {
        let (pushed, popped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Line { items: Mutex::new(VecDeque::new()), pushed, popped, capacity }
    }

    fn push(&self, item: T) -> bool {
        let mut items = self.items.lock().unwrap();
        let room = items.len() < self.capacity;
        items.push_back(item);
        drop(items);
        self.pushed.fetch_add(1, Ordering::Release);
        room
    }

    fn pop(&self) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        let item = self.items.lock().unwrap().pop_front();
        if item.is_some() {
            self.popped.fetch_add(1, Ordering::Release);
        }
        item
    }

    fn len(&self) -> usize {
        let popped = self.popped.load(Ordering::Acquire);
        self.pushed.load(Ordering::Acquire).saturating_sub(popped)
    }
}

/// Permits. All who wait are woken when there are more, and try again; whether it is closed is looked at without a lock.
struct Places {
    state: Mutex<(usize, Vec<Waker>)>,
    closed: AtomicBool,
}

impl Places {
    /// `None` where there is no room; then the waker is woken once it may try again.
    fn poll_take(&self, permits: u32, waker: Option<&Waker>) -> Option<bool> {
        let mut state = self.state.lock().unwrap();
        if self.closed.load(Ordering::Acquire) {
            return Some(false);
        }
        if state.0 >= permits as usize {
            state.0 -= permits as usize;
            return Some(true);
        }
        state.1.extend(waker.cloned());
        None
    }
}

impl Room for Places {
    fn new(permits: usize) -> Self {
        Places { state: Mutex::new((permits, Vec::new())), closed: AtomicBool::new(false) }
    }

    fn try_take(&self, permits: u32) -> Result<(), Refused> {
        match self.poll_take(permits, None) {
            Some(true) => Ok(()),
            Some(false) => Err(Refused::Closed),
            None => Err(Refused::Full),
        }
    }

    async fn take(&self, permits: u32) -> bool {
        poll_fn(|cx| self.poll_take(permits, Some(cx.waker())).map_or(Poll::Pending, Poll::Ready)).await
    }

    fn give(&self, permits: usize) {
        let mut state = self.state.lock().unwrap();
        state.0 += permits;
        state.1.drain(..).for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = self.state.lock().unwrap();
        self.closed.store(true, Ordering::Release);
        state.1.drain(..).for_each(Waker::wake);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Number for AtomicUsize {
    fn new() -> Self {
        AtomicUsize::new(0)
    }

    fn load(&self, order: Ordering) -> usize {
        AtomicUsize::load(self, order)
    }

    fn store(&self, value: usize, order: Ordering) {
        AtomicUsize::store(self, value, order);
    }

    fn swap(&self, value: usize, order: Ordering) -> usize {
        AtomicUsize::swap(self, value, order)
    }
}

/// A place for a waker.
struct Bell(Mutex<Option<Waker>>);

impl Bell {
    fn ring(&self, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut *self.0.lock().unwrap(), waker)
    }
}

impl Alarm for Bell {
    fn new() -> Self {
        Bell(Mutex::new(None))
    }

    fn register(&self, waker: &Waker) {
        drop(self.ring(Some(waker.clone())));
    }

    fn wake(&self) {
        if let Some(waker) = self.ring(None) {
            waker.wake();
        }
    }
}

type Shared<const FENCED: bool> = Arc<Post<usize, Modelled<FENCED>>>;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_up_to(PREEMPTIONS_MAX, model);
}

fn explore_up_to(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Whether loom finds a run in which something goes wrong.
fn goes_wrong(model: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| explore(model))).is_err()
}

type Prepare<const FENCED: bool> = fn(&Post<usize, Modelled<FENCED>>, &Waker) -> bool;

/// The shard's loop until it has taken up so many items: as `drive` in `host.rs`. Answers how often it set
/// out to sleep.
fn serve<const FENCED: bool>(post: &Shared<FENCED>, items: usize, prepare: Prepare<FENCED>) -> u64 {
    let (mut taken, mut attempts, mut must_find) = (0, 0, false);
    block_on(poll_fn(|cx| {
        post.awake();
        let mut found = 0;
        while post.pop().is_some() {
            found += 1;
        }
        assert!(found > 0 || !must_find, "a turn without anything to do");
        post.room().give(found);
        taken += found;
        if taken == items {
            return Poll::Ready(());
        }
        attempts += 1;
        must_find = !prepare(post, cx.waker());
        if must_find {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }));
    attempts
}

fn as_it_is<const FENCED: bool>(post: &Post<usize, Modelled<FENCED>>, waker: &Waker) -> bool {
    post.prepare_to_sleep(waker, 1, || true)
}

/// Looks before it says that it sleeps.
fn look_first<const FENCED: bool>(post: &Post<usize, Modelled<FENCED>>, waker: &Waker) -> bool {
    if post.queue.len() > 0 {
        return false;
    }
    post.alarm.register(waker);
    post.sleeps_for.swap(1, Ordering::AcqRel);
    Modelled::<FENCED>::fence();
    true
}

/// Says that it sleeps before it can be woken.
fn register_last<const FENCED: bool>(post: &Post<usize, Modelled<FENCED>>, waker: &Waker) -> bool {
    post.sleeps_for.swap(1, Ordering::AcqRel);
    Modelled::<FENCED>::fence();
    if post.queue.len() > 0 {
        post.awake();
        return false;
    }
    post.alarm.register(waker);
    true
}

/// So many threads post one item each, for which there is room.
fn posters<const FENCED: bool>(threads: usize, prepare: Prepare<FENCED>) {
    let post: Shared<FENCED> = Arc::new(Post::new(threads));
    let posting: Vec<_> = (0..threads)
        .map(|item| {
            let post = post.clone();
            thread::spawn(move || {
                post.room().try_take(1).expect("there is room");
                post.push(item, false);
            })
        })
        .collect();
    let attempts = serve(&post, threads, prepare);
    posting.into_iter().for_each(|thread| thread.join().unwrap());
    let (sent, saved) = post.wakes();
    assert_eq!(sent + saved, threads as u64, "a wake for each post, sent or saved");
    assert!(sent <= attempts, "a shard that is awake is not woken");
}

/// One posts while the shard sets out to sleep, once. Nothing waits here, so that what goes wrong is an assertion's failure
/// and not a standstill.
fn one_sleep<const FENCED: bool>(prepare: Prepare<FENCED>) {
    struct Woken(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let post: Shared<FENCED> = Arc::new(Post::new(1));
    let from = post.clone();
    let posting = thread::spawn(move || {
        from.room().try_take(1).expect("there is room");
        from.push(1, false);
    });
    let woken = std::sync::Arc::new(Woken(std::sync::atomic::AtomicBool::new(false)));
    let asleep = post.pop().is_none() && prepare(&post, &Waker::from(woken.clone()));
    posting.join().unwrap();
    assert!(!asleep || woken.0.load(Ordering::SeqCst), "it sleeps, and nobody will wake it");
}

#[test]
fn who_sleeps_is_woken() {
    explore(|| one_sleep(as_it_is::<true>));
}

#[test]
fn what_is_posted_is_taken_up_without_any_further_post() {
    explore(|| posters(1, as_it_is::<true>));
    explore_up_to(PREEMPTIONS_OF_MANY_MAX, || posters(2, as_it_is::<true>));
}

/// So many threads post one item each, patiently, while the shard sets out once to sleep until all are there.
fn patient_posters(threads: usize) {
    struct Woken(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let post: Shared<true> = Arc::new(Post::new(threads));
    let posting: Vec<_> = (0..threads)
        .map(|item| {
            let post = post.clone();
            thread::spawn(move || {
                post.room().try_take(1).expect("there is room");
                post.push(item, true);
            })
        })
        .collect();
    let woken = std::sync::Arc::new(Woken(std::sync::atomic::AtomicUsize::new(0)));
    let asleep = post.prepare_to_sleep(&Waker::from(woken.clone()), threads, || true);
    posting.into_iter().for_each(|thread| thread.join().unwrap());
    let wakes = woken.0.load(Ordering::SeqCst);
    assert!(!asleep || wakes == 1, "it sleeps, all are there, and it was woken {wakes} times");
    // As many as it slept for, less one, let it sleep on.
    while post.pop().is_some() {}
    post.room().give(threads);
    assert!(post.prepare_to_sleep(&Waker::from(woken.clone()), threads, || true));
    for item in 1..threads {
        post.room().try_take(1).expect("there is room");
        post.push(item, true);
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), wakes, "woken by too few");
    post.room().try_take(1).expect("there is room");
    post.push(0, false);
    assert_eq!(woken.0.load(Ordering::SeqCst), wakes + 1, "who is not patient wakes it");
}

#[test]
fn who_sleeps_for_several_is_woken_by_the_last() {
    explore(|| patient_posters(2));
    explore_up_to(PREEMPTIONS_OF_MANY_MAX, || patient_posters(3));
}

#[test]
fn who_waits_for_room_is_woken_when_there_is_some() {
    explore_up_to(PREEMPTIONS_OF_MANY_MAX, || {
        let post: Shared<true> = Arc::new(Post::new(1));
        let from = post.clone();
        let posting = thread::spawn(move || {
            for item in 0..2 {
                assert!(block_on(from.room().take(1)), "it is not closed");
                from.push(item, false);
            }
        });
        serve(&post, 2, as_it_is);
        posting.join().unwrap();
    });
}

#[test]
fn news_of_other_kinds_wake_too() {
    explore(|| {
        let post: Shared<true> = Arc::new(Post::new(1));
        let news = Arc::new(AtomicBool::new(false));
        let (bearer, bears) = (post.clone(), news.clone());
        let telling = thread::spawn(move || {
            bears.store(true, Ordering::Relaxed);
            bearer.wake();
        });
        block_on(poll_fn(|cx| {
            post.awake();
            if news.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            if !post.prepare_to_sleep(cx.waker(), 1, || !news.load(Ordering::Relaxed)) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }));
        telling.join().unwrap();
    });
}

/// One posts while another closes. Whatever came first: nothing stays behind.
fn closing<const FENCED: bool>() {
    let post: Arc<Post<Arc<()>, Modelled<FENCED>>> = Arc::new(Post::new(1));
    let item = Arc::new(());
    let (from, posted) = (post.clone(), item.clone());
    let posting = thread::spawn(move || {
        if from.room().try_take(1).is_ok() {
            from.push(posted, false);
        }
    });
    post.close();
    posting.join().unwrap();
    assert_eq!(Arc::strong_count(&item), 1, "an item that no one will look at");
    assert_eq!(post.room().try_take(1), Err(Refused::Closed));
}

#[test]
fn after_closing_nothing_is_left_behind() {
    explore(closing::<true>);
}

#[test]
fn closing_tells_everyone_who_waits() {
    explore(|| {
        let post: Shared<true> = Arc::new(Post::new(1));
        post.room().try_take(1).unwrap();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let post = post.clone();
                thread::spawn(move || assert!(!block_on(post.room().take(1)), "there never was room"))
            })
            .collect();
        post.close();
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn without_its_fences_or_in_another_order_it_goes_wrong() {
    assert!(goes_wrong(|| one_sleep(as_it_is::<false>)), "a wake is lost without fences");
    assert!(goes_wrong(closing::<false>), "an item is lost without fences");
    assert!(goes_wrong(|| one_sleep(look_first::<true>)), "a wake is lost by looking before saying so");
    assert!(goes_wrong(|| one_sleep(register_last::<true>)), "a wake is lost by registering last");
}
