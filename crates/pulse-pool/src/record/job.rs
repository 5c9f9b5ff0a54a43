//! The records of jobs, of which every node has all: each byte counts, in memory as in the server.
//!
//! A record has a form of its own, [`Packed`], with what a plain job never needs behind a pointer, or left out. Numbers
//! that stay small for good take six bytes.

use std::{cmp::Reverse, error::Error};

use bytes::{BufMut, Bytes};
use pulse_core::{Version, message_pack};
use pulse_rmap::Packed;
use serde::{Deserialize, Serialize};

use super::{Terms, is_default};
use crate::{
    Epoch, WorkerId,
    id::{AssignmentId, DispatchId},
    order::{self, Place},
};

/// How many attempts of a job may end with its node cut off before such count as failed.
const CUT_OFF_AT_MOST: u32 = 10;

/// A job. Its payload stands in a map of its own, which is not replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRecord {
    pub(crate) dispatch: DispatchId,
    pub(crate) assignment: AssignmentId,
    pub(crate) phase: Phase,
    /// 0: nobody.
    owner: u64,
    /// 0: none.
    epoch: u64,
    /// The workers' map that the owner was chosen by; its revision is 0 if it was chosen by none.
    incarnation: u64,
    revision: Small,
    /// When it was dispatched, by the server's clock, in milliseconds.
    at: Small,
    rare: Option<Box<Rare>>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Recorded, and to be started by its owner, or by whoever pulls it.
    Assigned,
    /// Its owner's handler accepted it.
    Running,
    /// To be stopped by its owner and then removed.
    Stopping,
    /// Its owner's handler refused it. The record only carries the message to whoever dispatched it, and expires; for
    /// everybody else there is no such job.
    Rejected,
}

/// A number below 2^48: no clock in milliseconds gets there, and no revision of a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Small([u8; 6]);

impl From<u64> for Small {
    fn from(number: u64) -> Self {
        let [_, _, bytes @ ..] = number.min((1 << 48) - 1).to_be_bytes();
        Self(bytes)
    }
}

impl From<Small> for u64 {
    fn from(Small([a, b, c, d, e, f]): Small) -> Self {
        Self::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// What most jobs have nothing of. Read by nodes of every version: fields may be added with a default, never changed or
/// removed. Whatever a later version adds to the record belongs here, where older ones read past it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rare {
    #[serde(rename = "b", default, skip_serializing_if = "is_default")]
    not_before: u64,
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    priority: i32,
    #[serde(rename = "f", default, skip_serializing_if = "is_default")]
    failed: u32,
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    cut_off: u32,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    needs: Option<Box<[String]>>,
    /// The schedule that started it.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Box<str>>,
    /// Why it was refused.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    refusal: String,
}

/// A version of the workers' map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacedBy {
    pub(crate) incarnation: u64,
    /// From 1.
    pub(crate) revision: u64,
}

impl From<Version> for PlacedBy {
    fn from(version: Version) -> Self {
        Self { incarnation: version.incarnation.0, revision: version.revision.0 }
    }
}

impl JobRecord {
    /// A job that nobody has run yet.
    pub(crate) fn dispatched(
        dispatch: DispatchId,
        terms: Terms,
        owner: Option<WorkerId>,
        placed_by: Option<PlacedBy>,
    ) -> Self {
        let mut record = Self {
            dispatch,
            assignment: AssignmentId::random(),
            phase: Phase::Assigned,
            owner: 0,
            epoch: 0,
            incarnation: 0,
            revision: Small::default(),
            at: terms.at.into(),
            rare: None,
        };
        record.give(owner, placed_by);
        let Terms { at: _, not_before, priority, failed, cut_off, needs, schedule } = terms;
        record.set_rare(Rare { not_before, priority, failed, cut_off, needs, schedule, refusal: String::new() });
        record
    }

    /// `None` if the bytes are no record.
    pub(crate) fn read(raw: &[u8]) -> Option<Self> {
        Self::unpack(raw).ok()
    }

    /// Nobody but this worker may run the job; `None`: nobody may.
    pub(crate) fn owner(&self) -> Option<WorkerId> {
        (self.owner != 0).then_some(WorkerId(self.owner))
    }

    /// Of the latest activation that came to run; `None` if none did yet.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        (self.epoch != 0).then_some(Epoch(self.epoch))
    }

    /// What the owner was chosen by.
    pub(crate) fn placed_by(&self) -> Option<PlacedBy> {
        let revision = u64::from(self.revision);
        (revision != 0).then_some(PlacedBy { incarnation: self.incarnation, revision })
    }

    /// When it was dispatched, by the server's clock, in milliseconds.
    pub(crate) fn at(&self) -> u64 {
        self.at.into()
    }

    /// It is not started before this moment of the server's clock, in milliseconds; 0: at once.
    pub(crate) fn not_before(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.not_before)
    }

    /// Since when it may run, by the server's clock, in milliseconds.
    pub(crate) fn due(&self) -> u64 {
        self.at().max(self.not_before())
    }

    /// Jobs of a greater one start first where a worker has not enough room for all.
    pub(crate) fn priority(&self) -> i32 {
        self.rare.as_ref().map_or(0, |rare| rare.priority)
    }

    /// Where it stands among those that wait for the same room.
    pub(crate) fn place(&self) -> Place {
        let (priority, due, at) = (Reverse(self.priority()), self.due(), self.at());
        Place { priority, due, at, nth: order::nth(self.dispatch) }
    }

    /// How many attempts failed since it was dispatched.
    pub(crate) fn failed(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.failed)
    }

    /// How many attempts ended because their node was cut off and stopped them, and do not count as failed.
    fn cut_off(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.cut_off)
    }

    /// The labels that its worker must have, sorted.
    pub(crate) fn needs(&self) -> &[String] {
        self.rare.as_ref().and_then(|rare| rare.needs.as_deref()).unwrap_or_default()
    }

    /// The schedule that started it.
    pub(crate) fn schedule(&self) -> Option<&str> {
        self.rare.as_ref().and_then(|rare| rare.schedule.as_deref())
    }

    /// The handler's message, if it refused the job.
    pub(crate) fn refusal(&self) -> &str {
        self.rare.as_ref().map_or("", |rare| &rare.refusal)
    }

    /// What was said of it when it was dispatched, and what became of it since.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            at: self.at(),
            not_before: self.not_before(),
            priority: self.priority(),
            failed: self.failed(),
            cut_off: self.cut_off(),
            needs: self.rare.as_ref().and_then(|rare| rare.needs.clone()),
            schedule: self.schedule().map(Into::into),
        }
    }

    fn give(&mut self, owner: Option<WorkerId>, placed_by: Option<PlacedBy>) {
        self.owner = owner.map_or(0, |owner| owner.0);
        self.incarnation = placed_by.map_or(0, |placed_by| placed_by.incarnation);
        self.revision = placed_by.map_or(0, |placed_by| placed_by.revision).into();
    }

    fn set_rare(&mut self, rare: Rare) {
        self.rare = (!is_default(&rare)).then(|| rare.into());
    }

    fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().map_or_else(Rare::default, |rare| *rare);
        change(&mut rare);
        self.set_rare(rare);
    }

    /// The same job given to another worker, or to nobody.
    pub(crate) fn assigned_to(&self, owner: Option<WorkerId>, placed_by: Option<PlacedBy>) -> Self {
        let mut assigned = Self { assignment: AssignmentId::random(), phase: Phase::Assigned, ..self.clone() };
        assigned.give(owner, placed_by);
        assigned
    }

    /// The same assignment, running.
    pub(crate) fn running(&self, epoch: Epoch) -> Self {
        Self { phase: Phase::Running, epoch: epoch.0, ..self.clone() }
    }

    /// The same job after its owner was found dead. If it ran, that was an attempt, which has failed.
    pub(crate) fn pulled_by(&self, owner: WorkerId, placed_by: Option<PlacedBy>) -> Self {
        let mut pulled = self.assigned_to(Some(owner), placed_by);
        if self.phase == Phase::Running && self.owner().is_some() {
            pulled.change_rare(|rare| rare.failed = rare.failed.saturating_add(1));
        }
        pulled
    }

    /// The same job after its owner's node was cut off, which has stopped it and takes it back now. That attempt has
    /// not failed, up to a number: a job must not go on for ever that blocks its node each time until that is cut off.
    pub(crate) fn taken_back_by(&self, owner: WorkerId, placed_by: Option<PlacedBy>) -> Self {
        if self.phase != Phase::Running || self.cut_off() >= CUT_OFF_AT_MOST {
            return self.pulled_by(owner, placed_by);
        }
        let mut pulled = self.assigned_to(Some(owner), placed_by);
        pulled.change_rare(|rare| rare.cut_off += 1);
        pulled
    }

    /// The same job of the same owner, to be started again at that time of the server's clock.
    pub(crate) fn again(&self, not_before: u64, failed: bool) -> Self {
        let mut again = Self { assignment: AssignmentId::random(), phase: Phase::Assigned, ..self.clone() };
        again.change_rare(|rare| {
            rare.not_before = not_before;
            rare.failed = rare.failed.saturating_add(u32::from(failed));
        });
        again
    }

    /// The same assignment, to be stopped.
    pub(crate) fn stopping(&self) -> Self {
        Self { phase: Phase::Stopping, ..self.clone() }
    }

    /// The same assignment, refused with a message.
    pub(crate) fn rejected(&self, message: &str) -> Self {
        const LONGEST: usize = 1024;
        let mut rejected = Self { phase: Phase::Rejected, ..self.clone() };
        rejected.change_rare(|rare| rare.refusal = message.chars().take(LONGEST).collect());
        rejected
    }

    /// Whether there is a job, rather than only the trace of a refused one.
    pub(crate) fn is_job(&self) -> bool {
        self.phase != Phase::Rejected
    }
}

/// What a packed record begins with; no MessagePack does.
const FORM: u8 = 0xc1;

const OWNED: u8 = 1 << 2;
const RUN: u8 = 1 << 3;
const PLACED: u8 = 1 << 4;
const RARE: u8 = 1 << 5;
/// What a node of this version cannot know the meaning of.
const UNKNOWN: u8 = 1 << 6 | 1 << 7;

/// The longest that a record is without what is rare: the form and the flags; dispatch, assignment, and time; owner,
/// epoch, and what placed it.
const PLAIN: usize = 2 + (8 + 8 + 6) + (8 + 8 + (8 + 6));

impl JobRecord {
    /// What is rare as it is packed. Of numbers and texts alone, so that it cannot fail.
    fn pack_rare(&self) -> Option<Bytes> {
        self.rare.as_ref().and_then(|rare| message_pack::encode(&**rare).ok())
    }

    /// All that stands before what is rare, and how long it is.
    fn pack_plain(&self, has_rare: bool) -> ([u8; PLAIN], usize) {
        let phase = match self.phase {
            Phase::Assigned => 0,
            Phase::Running => 1,
            Phase::Stopping => 2,
            Phase::Rejected => 3,
        };
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        let flags = flag(OWNED, self.owner != 0)
            | flag(RUN, self.epoch != 0)
            | flag(PLACED, self.placed_by().is_some())
            | flag(RARE, has_rare);
        let mut plain = [0; PLAIN];
        let mut room = &mut plain[..];
        room.put_slice(&[FORM, phase | flags]);
        room.put_u64(self.dispatch.0);
        room.put_u64(self.assignment.0);
        room.put_slice(&self.at.0);
        if self.owner != 0 {
            room.put_u64(self.owner);
        }
        if self.epoch != 0 {
            room.put_u64(self.epoch);
        }
        if self.placed_by().is_some() {
            room.put_u64(self.incarnation);
            room.put_slice(&self.revision.0);
        }
        let length = PLAIN - room.len();
        (plain, length)
    }
}

impl Packed for JobRecord {
    /// The form; the phase and what there is; dispatch, assignment, and time; owner, epoch, and what placed it; and
    /// what is rare, in MessagePack.
    fn pack(&self) -> Bytes {
        let rare = self.pack_rare();
        let (plain, length) = self.pack_plain(rare.is_some());
        [&plain[..length], rare.as_deref().unwrap_or_default()].concat().into()
    }

    fn packs_to(&self, raw: &[u8]) -> bool {
        let rare = self.pack_rare();
        let (plain, length) = self.pack_plain(rare.is_some());
        raw.strip_prefix(&plain[..length]) == Some(rare.as_deref().unwrap_or_default())
    }

    fn unpack(raw: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut rest = Rest(raw);
        let [form, flags] = rest.take()?;
        if form != FORM {
            return Err("not the record of a job".into());
        }
        if flags & UNKNOWN != 0 {
            return Err("the record of a job as a newer version writes it".into());
        }
        let phase = match flags & 3 {
            0 => Phase::Assigned,
            1 => Phase::Running,
            2 => Phase::Stopping,
            _ => Phase::Rejected,
        };
        let (dispatch, assignment) = (DispatchId(rest.number()?), AssignmentId(rest.number()?));
        let at = Small(rest.take()?);
        let owner = if flags & OWNED != 0 { rest.number()? } else { 0 };
        let epoch = if flags & RUN != 0 { rest.number()? } else { 0 };
        let (incarnation, revision) =
            if flags & PLACED != 0 { (rest.number()?, Small(rest.take()?)) } else { (0, Small::default()) };
        let rare: Option<Box<Rare>> = match rest.0 {
            [] if flags & RARE == 0 => None,
            more if flags & RARE != 0 => Some(message_pack::decode(more)?),
            _ => return Err("more than the record of a job".into()),
        };
        Ok(Self { dispatch, assignment, phase, owner, epoch, incarnation, revision, at, rare })
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("the record of a job ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
