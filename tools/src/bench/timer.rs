//! Sleeping until a moment, to within what the kernel's clock events allow (tens of microseconds): tokio's timers go in
//! steps of a millisecond, too coarse for the schedule of an open loop.
//!
//! A timerfd, which becomes readable when it expires. tokio waits for it as it waits for a pipe: that is the one type
//! of its own that takes any descriptor and needs no unsafe code.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;
use tokio::net::unix::pipe::Receiver;

/// A timer for tasks of one thread.
pub(crate) struct Timer {
    timer: TimerFd,
    /// The same timer, to be waited for.
    expired: Receiver,
}

impl Timer {
    /// A timer of the current runtime, which must drive I/O.
    ///
    /// # Errors
    ///
    /// What the kernel says where it gives no timer.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let expired = Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Timer { timer, expired })
    }

    /// Waits until then; returns at once where that is past.
    ///
    /// # Errors
    ///
    /// What the kernel says where it does not take the time.
    pub(crate) async fn until(&self, then: Instant) -> io::Result<()> {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        loop {
            self.expired.readable().await?;
            match self.expired.try_read(&mut [0; 8]) {
                Ok(_) => return Ok(()),
                // Readiness was a leftover of the last expiration.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_never_wakes_early_and_can_be_used_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            timer.until(Instant::now() - Duration::from_secs(1)).await.unwrap();
            for microseconds in [1, 100, 2000, 1, 300] {
                let then = Instant::now() + Duration::from_micros(microseconds);
                timer.until(then).await.unwrap();
                assert!(Instant::now() >= then, "{microseconds}");
            }
        });
    }
}
