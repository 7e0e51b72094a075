//! How a hand-over ended, and what that makes of the message.

use super::*;

impl Run<'_> {
    /// A hand-over has ended.
    pub(super) async fn take_in(&mut self, mut hand: InHand, ended: Ended) -> Result<()> {
        hand.row.last_attempt = Some(self.now());
        let digest = comparable(hand.fingerprints.digest(&hand.message.attachments), &hand.message);
        if digest != Digest::Unknown {
            hand.row.digest = digest;
        }
        self.report.attachments +=
            hand.message.attachments.iter().filter(|a| a.kind != AttachmentKind::Link).count() as u64;
        self.report.bytes += hand.fingerprints.bytes();
        let reason = match ended {
            Ended::Outcome(outcome) => return self.take_in_outcome(hand, outcome).await,
            Ended::Panic(text) => Reason::handler_panic(&text),
            Ended::Err(error) => {
                if let Some((kind, message)) = hand.fingerprints.failure() {
                    if kind.is_account_wide() {
                        self.give_back(hand, Reason::ACCOUNT_ERROR, false);
                        self.ending.get_or_insert(Ending::Failed(Error::new(kind, message)));
                        return Ok(());
                    }
                    if kind == ErrorKind::NotFound && self.is_gone(&hand.row.handle).await? {
                        self.settle_gone(hand.row);
                        return Ok(());
                    }
                }
                let text = shorten(&chain(&*error));
                if is_storage(&*error) {
                    let reason = Reason::storage(&text);
                    self.give_back(hand, reason.clone(), true);
                    self.ending.get_or_insert(Ending::Stopped(reason));
                    return Ok(());
                }
                Reason::handler_error(&text)
            }
        };
        self.suspects.push((reason, hand));
        if self.suspects.len() >= ERRORS_IN_A_ROW {
            for (reason, hand) in std::mem::take(&mut self.suspects) {
                self.give_back(hand, reason, true);
            }
            self.ending.get_or_insert(Ending::Stopped(Reason::HOST_TROUBLE));
        }
        Ok(())
    }

    pub(super) async fn take_in_outcome(&mut self, mut hand: InHand, outcome: Outcome) -> Result<()> {
        if let Outcome::Stop(reason) = outcome {
            self.give_back(hand, reason.clone(), true);
            self.ending.get_or_insert(Ending::Stopped(reason));
            return Ok(());
        }
        // The host is well: what failed before was the messages' own fault.
        self.settle_suspects();
        let (recorded, fate, reason) = match outcome {
            Outcome::Imported => match &hand.earlier {
                Some(earlier) if earlier.outcome == Recorded::Imported => {
                    (Recorded::Imported, Fate::Reimported, Some(Reason::PUT_BACK))
                }
                _ => (Recorded::Imported, Fate::Imported, None),
            },
            Outcome::Skip(reason) => (Recorded::Skipped, Fate::Skipped, Some(reason)),
            Outcome::Reject(reason) => {
                hand.row.attempts += 1;
                (Recorded::Failed, Fate::Failed, Some(reason))
            }
            Outcome::Retry(reason) => {
                self.attempt_failed(hand, reason);
                return Ok(());
            }
            Outcome::Stop(_) => unreachable!("handled above"),
        };
        self.settle(hand, recorded, fate, reason);
        Ok(())
    }

    /// The run ends with failures that nothing spoke for or against.
    pub(super) fn settle_last_suspects(&mut self) {
        if matches!(self.ending, None | Some(Ending::Limit)) {
            return self.settle_suspects();
        }
        for (reason, hand) in std::mem::take(&mut self.suspects) {
            self.give_back(hand, reason, true);
        }
    }

    pub(super) fn settle_suspects(&mut self) {
        for (reason, hand) in std::mem::take(&mut self.suspects) {
            self.attempt_failed(hand, reason);
        }
    }

    /// An attempt counts: another one later, or never.
    pub(super) fn attempt_failed(&mut self, mut hand: InHand, reason: Reason) {
        hand.row.attempts += 1;
        if hand.row.attempts >= self.job().max_attempts {
            return self.settle(hand, Recorded::Failed, Fate::Failed, Some(reason));
        }
        let wait = 60i64.saturating_mul(4i64.saturating_pow(hand.row.attempts - 1)).min(30 * DAY);
        hand.row.next_attempt = Timestamp::from_second(self.now().as_second() + wait).ok();
        self.put_off(hand.row, Some(hand.delivery), reason, true);
    }

    /// The attempt does not count: the message is as it was before.
    pub(super) fn give_back(&mut self, mut hand: InHand, reason: Reason, tried: bool) {
        (hand.row.attempts, hand.row.next_attempt) = hand.before;
        self.put_off(hand.row, Some(hand.delivery), reason, tried);
    }

    pub(super) fn put_off(&mut self, mut row: Row, delivery: Option<String>, reason: Reason, tried: bool) {
        row.step = Step::Waiting;
        row.outcome = None;
        row.reason = Some(reason.clone());
        row.deaths = 0;
        let mut record = self.record(&row, Fate::Left, Some(reason));
        record.delivery = delivery;
        record.will_retry = tried;
        self.batch.push((Some(row), Effect::Tell(Box::new(record), None)));
    }

    /// An outcome is final.
    pub(super) fn settle(&mut self, hand: InHand, outcome: Recorded, fate: Fate, reason: Option<Reason>) {
        let mut row = hand.row;
        row.outcome = Some(outcome);
        row.reason.clone_from(&reason);
        row.next_attempt = None;
        row.deaths = 0;
        let place = self.wanted_in(Some(outcome)).filter(|place| *place != row.place);
        row.step = if place.is_some() { Step::Handled } else { Step::Done };
        let mut record = self.record(&row, fate, reason);
        record.delivery = Some(hand.delivery);
        let to_move = place.map(|place| ToMove { id: row.handle.clone(), row: Some(Box::new(row.clone())), place });
        self.batch.push((Some(row), Effect::Tell(Box::new(record), to_move)));
    }

    pub(super) fn settle_gone(&mut self, mut row: Row) {
        row.step = Step::Done;
        row.outcome = Some(Recorded::Gone);
        row.reason = Some(Reason::VANISHED);
        row.run = self.token();
        let record = self.record(&row, Fate::Gone, Some(Reason::VANISHED));
        self.batch.push((Some(row), Effect::Tell(Box::new(record), None)));
    }
}

pub(super) fn settled_reason(row: &Row) -> Reason {
    match row.outcome {
        Some(Recorded::Failed | Recorded::Skipped) => row.reason.clone().unwrap_or(Reason::ALREADY_DONE),
        _ => Reason::ALREADY_DONE,
    }
}

pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 1000;
    if text.chars().count() <= LONGEST { text.to_owned() } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

/// Whether the host's own disk or database failed.
pub(super) fn is_storage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::Storage) {
            return true;
        }
        let full = error.downcast_ref::<std::io::Error>().is_some_and(|e| {
            use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
            matches!(e.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        });
        if full {
            return true;
        }
        next = error.source();
    }
    false
}
