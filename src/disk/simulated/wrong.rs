//! What a fault makes of an operation: an error, or an effect other than the one that was asked for.

use super::SplitMix64;
use super::content::Content;
use super::effects;
use super::fault::Fault;
use super::state::{ContentId, Effect, State, Work};
use crate::disk::IoBuf;
use rustix::io::Errno;
use std::io::{Error, Result};

impl State {
    /// An operation that fails, or does something else. `None` where the fault does not fit it.
    pub(super) fn go_wrong(
        &mut self,
        fault: Fault,
        work: &Work,
        mut buf: Option<&mut IoBuf>,
        random: &mut SplitMix64,
    ) -> Option<Result<Effect>> {
        let failed = |errno: i32| Some(Err(Error::from_raw_os_error(errno)));
        let length = buf.as_ref().map_or(0, |buf| buf.len());
        match (fault, work) {
            (Fault::Torn(errno), Work::Write { content, offset, .. }) => {
                if let (Ok(content), Some(buf)) = (self.content(*content), buf) {
                    content.write_torn(*offset, buf, random);
                }
                self.effects.hit(effects::WRITE_TORN);
                failed(errno)
            }
            (Fault::Fail(errno) | Fault::Torn(errno), Work::Close { content }) => {
                self.release(*content);
                self.effects.hit(effects::OTHER_FAILED);
                failed(errno)
            }
            (Fault::Fail(errno) | Fault::Torn(errno), _) => {
                self.effects.hit(match work {
                    _ if errno == Errno::NOSPC.raw_os_error() => effects::WRITE_NO_SPACE,
                    Work::Write { .. } => effects::WRITE_FAILED,
                    Work::Read { .. } => effects::READ_FAILED,
                    Work::Sync { .. } | Work::SyncFolder { .. } => effects::FLUSH_FAILED,
                    _ => effects::OTHER_FAILED,
                });
                failed(errno)
            }
            (Fault::Forgets(errno), Work::Sync { content, .. }) => {
                let content = self.contents.get_mut(content)?;
                let forgot = content.forget(random, &mut self.effects);
                self.effects.hit(if forgot { effects::FLUSH_FORGOT } else { effects::FLUSH_FAILED });
                failed(errno)
            }
            // Names are in a journal, which does not forget.
            (Fault::Forgets(errno), Work::SyncFolder { .. }) => {
                self.effects.hit(effects::FLUSH_FAILED);
                failed(errno)
            }
            (Fault::Lost, Work::Sync { content, .. }) => {
                if self.contents.get(content).is_some_and(Content::is_dirty) {
                    self.effects.hit(effects::FLUSH_LIED);
                    self.harm(*content);
                }
                Some(Ok(Effect::Done))
            }
            (Fault::Lost, Work::SyncFolder { .. }) => {
                if !self.pending_names.is_empty() {
                    self.effects.hit(effects::FLUSH_LIED);
                }
                for (_, change) in &self.pending_names {
                    self.effects.harm(change.name());
                }
                Some(Ok(Effect::Done))
            }
            (Fault::Lost, Work::Write { content, offset, .. }) => {
                let there = self.contents.get(content)?.volatile().get(*offset..*offset + length);
                if there != buf.as_deref().map(|buf| &buf[..]) {
                    self.effects.hit(effects::WRITE_LOST);
                    self.harm(*content);
                }
                Some(Ok(Effect::Done))
            }
            (Fault::Volatile, Work::Write { content, offset, durable: true }) => {
                let honest = Work::Write { content: *content, offset: *offset, durable: false };
                self.effects.hit(effects::FLUSH_WRITE_LIED);
                self.harm(*content);
                Some(self.perform(&honest, buf, 0..length))
            }
            (Fault::Misplaced(at), Work::Write { content, offset, durable }) if at as usize != *offset => {
                let elsewhere = Work::Write { content: *content, offset: at as usize, durable: *durable };
                self.effects.hit(effects::WRITE_MISPLACED);
                self.harm(*content);
                Some(self.perform(&elsewhere, buf, 0..length))
            }
            (Fault::WrongFile(choice), Work::Write { content, offset, durable }) => {
                let others: Vec<ContentId> =
                    self.names.values().copied().filter(|other| other != content).collect();
                let other = *others.get(choice.checked_rem(others.len() as u64)? as usize)?;
                let elsewhere = Work::Write { content: other, offset: *offset, durable: *durable };
                self.effects.hit(effects::WRITE_WRONG_FILE);
                self.harm(*content);
                self.harm(other);
                Some(self.perform(&elsewhere, buf, 0..length))
            }
            (Fault::Misplaced(at), Work::Read { content, offset }) => {
                let right = self.contents.get(content)?.volatile().get(*offset..*offset + length)?.to_vec();
                let elsewhere = Work::Read { content: *content, offset: at as usize };
                let result = self.perform(&elsewhere, buf.as_deref_mut(), 0..length);
                if result.is_err() {
                    return None;
                }
                if buf.is_some_and(|buf| buf[..] != right[..]) {
                    self.effects.hit(effects::READ_MISPLACED);
                    self.harm(*content);
                }
                Some(result)
            }
            (Fault::Flipped { offset: byte, xor }, Work::Read { content, .. }) => {
                let result = self.perform(work, buf.as_deref_mut(), 0..length);
                if let (Ok(_), Some(buf)) = (&result, buf)
                    && length > 0
                {
                    buf[byte as usize % length] ^= xor;
                    self.effects.hit(effects::READ_FLIPPED);
                    self.harm(*content);
                }
                Some(result)
            }
            (Fault::Rotten { offset: byte, xor }, Work::Read { content, offset }) => {
                let at = offset + (byte as usize).checked_rem(length)?;
                if self.contents.get_mut(content)?.corrupt(at, xor) {
                    self.effects.hit(effects::READ_ROTTEN);
                    self.harm(*content);
                }
                None
            }
            _ => None,
        }
    }
}
