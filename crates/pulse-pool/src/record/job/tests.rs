use proptest::prelude::*;

use super::*;

#[test]
fn an_attempt_counts_that_ran_when_its_node_died() {
    let assigned = JobRecord::dispatched(DispatchId(1), Terms::default(), Some(WorkerId(1)), None);
    let pulled = assigned.pulled_by(WorkerId(2), None);
    assert_eq!(pulled.failed(), 0, "it was never begun");
    let pulled = pulled.running(Epoch(1)).pulled_by(WorkerId(3), None);
    assert_eq!((pulled.failed(), pulled.owner()), (1, Some(WorkerId(3))));
}

#[test]
fn an_attempt_does_not_count_that_its_node_stopped_and_takes_back_unless_that_happens_again_and_again() {
    let mut job = JobRecord::dispatched(DispatchId(1), Terms::default(), Some(WorkerId(1)), None);
    for _ in 0..3 {
        job = job.taken_back_by(WorkerId(2), None);
    }
    assert_eq!(job.cut_off(), 0, "it was never begun");
    for _ in 0..CUT_OFF_AT_MOST {
        job = job.running(Epoch(1)).taken_back_by(WorkerId(2), None);
    }
    assert_eq!(job.failed(), 0);
    job = job.running(Epoch(1)).taken_back_by(WorkerId(2), None);
    assert_eq!((job.failed(), job.cut_off()), (1, CUT_OFF_AT_MOST));
}

#[test]
fn a_plain_record_takes_eight_words() {
    assert_eq!(size_of::<Option<JobRecord>>(), 64);
}

fn terms() -> impl Strategy<Value = Terms> {
    let needs = proptest::option::of(proptest::collection::vec("[a-z]{1,5}", 1..3).prop_map(Into::into));
    let schedule = proptest::option::of("[a-z]{1,5}".prop_map(Into::into));
    (0..1_u64 << 48, any::<u64>(), any::<i32>(), any::<u32>(), needs, schedule).prop_map(
        |(at, not_before, priority, failed, needs, schedule)| Terms {
            at,
            not_before,
            priority,
            failed,
            cut_off: 0,
            needs,
            schedule,
        },
    )
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        dispatch: u64,
        terms in terms(),
        owner in proptest::option::of(1_u64..),
        placed_by in proptest::option::of((any::<u64>(), 1..1_u64 << 48)),
        epoch in proptest::option::of(1_u64..),
        message in ".*",
    ) {
        let placed_by = placed_by.map(|(incarnation, revision)| PlacedBy { incarnation, revision });
        let owner = owner.map(WorkerId);
        let record = JobRecord::dispatched(DispatchId(dispatch), terms.clone(), owner, placed_by);
        prop_assert_eq!(record.terms(), terms);
        prop_assert_eq!((record.owner(), record.placed_by()), (owner, placed_by));
        let running = epoch.map_or_else(|| record.clone(), |epoch| record.running(Epoch(epoch)));
        prop_assert_eq!(running.epoch(), epoch.map(Epoch));
        for record in [running.stopping(), running.rejected(&message), running, record] {
            let raw = record.pack();
            prop_assert!(record.packs_to(&raw));
            prop_assert!(!record.packs_to(&raw[..raw.len() - 1]));
            prop_assert!(!record.packs_to(&[&raw[..], b"\0"].concat()));
            prop_assert_eq!(JobRecord::unpack(&raw).unwrap(), record);
        }
    }

    #[test]
    fn garbage_is_no_record_or_some_record_but_no_panic(mut raw: Vec<u8>) {
        let _ = JobRecord::unpack(&raw);
        raw.splice(0..0, [FORM]);
        let _ = JobRecord::unpack(&raw);
    }
}

#[test]
fn a_record_in_a_form_that_is_not_ours_is_read_and_known_for_it() {
    let with = |flags: u8, rest: &[u8]| [&[FORM, flags][..], &[7; 22], rest].concat();
    let (owner_0, epoch_0, revision_0) = (with(OWNED, &[0; 8]), with(RUN, &[0; 8]), with(PLACED, &[0; 14]));
    let of_a_later_version = with(RARE, b"\x81\xa1z\x01");
    for raw in [owner_0, epoch_0, revision_0, of_a_later_version] {
        let record = JobRecord::unpack(&raw).unwrap();
        assert!(!record.packs_to(&raw), "{raw:?}");
        assert_ne!(record.pack(), raw);
    }
}
