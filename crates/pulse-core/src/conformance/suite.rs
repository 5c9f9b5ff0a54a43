//! The list of all checks, and the two ways to run them.

use std::fmt;

use futures::future::LocalBoxFuture;

use super::Subject;

/// One check.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// The subject and the promise: `counters::a_counter_is_exact_over_64_bits`.
    pub name: &'static str,
    /// Checks it, on the thread that it is awaited on; panics if it does not hold.
    pub run: fn(Subject) -> LocalBoxFuture<'static, ()>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.name)
    }
}

/// Runs the check of that name.
///
/// # Panics
///
/// If the promise does not hold, or if there is no such check.
pub async fn run(name: &str, subject: Subject) {
    match cases().find(|case| case.name == name) {
        Some(case) => (case.run)(subject).await,
        None => panic!("the conformance suite has no check {name}"),
    }
}

/// Makes a module with one test for each check of the conformance suite.
///
/// The attribute is put on each test, so it says which runtime and which clock they run on. The name after `=` is that
/// of a function beside the module that makes the [`Subject`](crate::conformance::Subject), called once for each test.
///
/// ```
/// # use std::sync::Arc;
/// # use pulse_core::{Backend, Memory, conformance::Subject};
/// # fn my_store() -> Subject {
/// #     Subject::new(|limits| async move { Ok(Arc::new(Memory::named("store", limits)) as Arc<dyn Backend>) })
/// # }
/// pulse_core::conformance_tests! {
///     #[tokio::test(flavor = "multi_thread")]
///     mod my_backend = my_store;
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance_tests {
    (#[$attribute:meta] mod $module:ident = $subject:ident;) => {
        mod $module {
            use super::$subject as subject;

            $crate::__conformance_cases! { [$crate::__conformance_tests] [#[$attribute]] }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ([#[$attribute:meta]] $($module:ident { $($case:ident)+ })+) => {
        $(
            mod $module {
                use super::subject;

                $(
                    #[$attribute]
                    async fn $case() {
                        let name = concat!(stringify!($module), "::", stringify!($case));
                        $crate::conformance::run(name, subject()).await;
                    }
                )+
            }
        )+
    };
}

macro_rules! listed {
    ([] $($module:ident { $($case:ident)+ })+) => {
        [$($(
            Case {
                name: concat!(stringify!($module), "::", stringify!($case)),
                run: |subject| Box::pin(super::$module::$case(subject)),
            },
        )+)+]
    };
}

/// All checks of the suite.
pub fn cases() -> impl Iterator<Item = Case> {
    crate::__conformance_cases!([listed] []).into_iter()
}

/// Calls `callback! { args… module { check… } … }` with all checks. A check that is missing here is unused code, which
/// the compiler reports.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ([$($callback:tt)+] [$($arguments:tt)*]) => {
        $($callback)+! {
            [$($arguments)*]
            commits {
                an_empty_transaction_is_committed
                each_write_has_its_result_at_its_place
                what_is_replaced_is_left_out_where_nobody_asks
                later_writes_see_what_earlier_ones_did
                versions_are_listed_once_for_each_named_map_in_order_of_mention
                a_write_that_fails_undoes_the_whole_transaction
                of_racing_commits_that_expect_the_same_exactly_one_goes_through
                nobody_sees_half_a_commit
                scopes_maps_and_streams_of_like_names_are_apart
                what_belongs_to_another_scope_is_refused_by_name
                another_client_sees_what_was_committed
                a_transaction_holds_thousands_of_writes
                a_transaction_holds_a_megabyte
            }
            crowds {
                simultaneous_puts_are_transactions_of_their_own
                simultaneous_puts_of_bound_and_unbound_keys_keep_their_bindings
                simultaneous_appends_are_each_there_once_and_in_order
                a_caller_that_gives_up_takes_nobody_along
            }
            expectations {
                every_kind_that_holds_lets_the_transaction_through
                every_kind_that_fails_says_what_was_found_and_changes_nothing
                the_first_that_fails_is_named
                all_are_judged_on_the_state_before_the_transaction
                a_failed_one_wins_over_a_write_that_would_fail
                an_empty_stream_exists
                an_entry_past_its_deadline_is_present_until_it_is_swept
            }
            maps {
                a_put_returns_what_was_there_before
                a_delete_returns_what_it_removed
                keys_and_values_are_kept_to_the_byte
                get_answers_in_the_order_of_the_keys
                a_clear_deletes_all_keys_and_counts_them
                destroying_a_map_deletes_and_counts_its_keys
                puts_and_deletions_of_one_map_are_one_commit_in_their_order
                what_is_refused_of_puts_and_deletions_says_why_and_changes_nothing
                writes_of_many_tasks_are_all_kept
            }
            counters {
                an_absent_key_counts_from_zero
                a_decimal_value_counts_on
                a_counter_is_exact_over_64_bits
                leaving_the_64_bit_range_is_refused
                a_value_that_is_no_counter_is_refused
                adding_keeps_the_binding_of_the_key
                a_counter_that_begins_with_a_binding_ends_with_it
                adding_for_a_lease_that_is_not_alive_is_refused
            }
            lists {
                an_append_returns_the_list_after_it
                appending_unique_items_skips_what_the_list_has
                appending_nothing_changes_nothing
                removing_takes_out_every_occurrence
                a_list_left_empty_is_deleted_with_its_key
                items_are_kept_to_the_byte
                the_value_of_a_list_is_messagepack
                a_value_that_is_no_list_is_refused
                list_operations_keep_the_binding_of_the_key
            }
            versions {
                the_first_change_creates_the_map_at_revision_1
                a_commit_raises_the_revision_by_one_whatever_it_changes
                writes_that_change_nothing_keep_the_revision
                a_put_of_the_same_value_is_a_change_and_so_is_an_add_of_zero_and_a_clear_of_nothing
                changes_that_cancel_out_are_changes
                an_emptied_map_lives_on
                a_destroyed_map_begins_another_life
                a_map_may_end_and_begin_again_in_one_transaction
                a_map_that_begins_and_ends_in_one_transaction_does_not_exist
                a_stale_version_is_refused
            }
            feeds {
                a_feed_tells_every_commit_with_absolute_values
                a_feed_begins_before_its_map_exists_and_outlasts_it
                a_feed_hears_nothing_from_before_it
                a_feed_hears_only_its_own_map
                a_commit_that_changes_nothing_is_not_told
                every_feed_of_every_client_hears_the_same
                what_a_lease_and_a_sweep_delete_is_told
                a_copy_made_while_others_write_becomes_exact
                a_reader_that_sleeps_finds_every_commit_or_a_gap
                dropping_a_feed_or_a_wait_for_it_disturbs_nobody
                hundreds_of_feeds_are_served_side_by_side
            }
            pages {
                a_map_that_does_not_exist_has_one_empty_page
                the_pages_hold_every_entry
                a_limit_of_zero_still_makes_progress
                a_key_that_stays_is_seen_while_others_come_and_go
                a_cursor_of_a_stranger_is_refused
            }
            streams {
                an_event_comes_back_as_it_was_appended
                ids_only_grow
                an_id_is_greater_than_those_of_a_destroyed_stream
                an_id_is_greater_than_those_of_deleted_events
                a_read_begins_after_an_id_and_ends_at_its_limit
                a_read_says_whether_the_entry_before_it_still_stands
                a_stream_that_does_not_exist_is_like_an_empty_one
                a_stream_describes_itself
                a_stream_describes_itself_with_its_groups
                an_exact_trim_leaves_exactly_the_newest
                an_approximate_trim_never_drops_too_much
                a_trim_by_age_drops_what_is_older
                a_trim_of_what_was_consumed_waits_for_every_group
                single_events_are_deleted_and_counted
                a_destroyed_stream_is_gone_with_its_groups
                a_stream_expires_by_itself
                the_expiry_of_a_stream_is_renewed_and_taken_back
                the_clock_of_the_backend_goes_on
                all_clients_give_the_server_the_same_name
            }
            appends {
                several_events_a_trim_and_a_lifetime_are_one_transaction
                an_append_that_expects_a_stream_or_a_length_says_which_does_not_hold
                simultaneous_appends_never_exceed_the_length_that_they_expect
                simultaneous_batches_stay_together_and_are_trimmed
            }
            losses {
                a_trim_records_what_each_group_had_not_been_handed
                trims_that_follow_each_other_make_one_record
                every_kind_of_trim_records_on_every_way
                an_emptied_stream_records_up_to_the_next_event
                a_record_ends_with_its_group_and_its_stream
                of_racing_callers_one_gets_the_record
                a_group_that_is_trimmed_past_again_and_again_loses_count_of_nothing
            }
            onces {
                what_was_appended_once_is_not_appended_again
                a_once_id_counts_for_one_stream_and_one_window
                a_once_id_vanishes_with_its_stream
                a_once_id_outlives_its_event
                simultaneous_appends_by_one_once_id_add_one_event
                an_append_once_takes_part_in_its_transaction
                many_once_ids_come_and_go
            }
            waits {
                a_read_ends_empty_when_nothing_comes
                a_waiting_read_gets_what_is_appended
                every_waiting_reader_gets_every_event
                a_waiting_consumer_gets_what_is_appended
                each_event_goes_to_one_waiting_consumer
                a_waiting_consumer_learns_that_its_group_is_gone
                waiting_reads_do_not_hold_up_other_calls
                hundreds_of_waits_are_served_side_by_side
                consumers_of_many_groups_wait_side_by_side
            }
            groups {
                a_group_starts_where_it_was_told
                creating_a_group_creates_its_stream
                creating_a_group_again_leaves_its_cursor_alone
                each_event_is_handed_out_once
                what_is_handed_out_without_acknowledgement_is_never_pending
                a_waiting_consumer_that_does_not_acknowledge_gets_what_is_appended
                the_cursor_passes_deleted_events
                an_event_is_pending_until_it_is_acknowledged
                acknowledging_for_nobody_is_ignored
                an_event_is_acknowledged_appended_and_recorded_in_one_transaction
                pending_events_are_listed_as_asked
                a_group_describes_itself
                a_consumer_exists_from_its_first_event_on
                a_consumer_is_removed_only_without_pending_events
                a_destroyed_group_is_gone_with_its_pending_events
                every_call_on_a_group_that_is_not_there_says_so
                groups_and_consumers_may_have_any_name
                trimmed_events_that_were_not_handed_out_never_come
            }
            claims {
                a_claim_takes_over_and_counts_the_delivery
                a_claim_takes_the_oldest_up_to_its_limit
                a_claim_passes_over_what_is_not_idle_enough
                an_event_becomes_idle_with_time
                of_racing_claims_one_gets_each_event
                deleted_events_leave_the_pending_list_by_a_claim
                setting_the_idle_time_touches_only_ones_own
                no_idle_time_is_too_long
                an_idle_time_of_zero_keeps_an_event
                an_acknowledgement_counts_whoever_holds_the_event
                a_claim_makes_its_consumer_exist
            }
            leases {
                a_lease_is_alive_until_its_time_has_passed
                a_lease_does_not_expire_before_its_time
                leases_of_one_id_in_two_scopes_are_apart
                lease_ids_may_be_any_number
                a_renewal_moves_the_deadline
                a_lease_that_is_gone_is_not_renewed
                dropping_a_lease_deletes_what_is_bound_to_it
                what_a_transaction_writes_and_a_dropped_lease_deletes_is_one_commit
                an_expired_lease_can_still_be_dropped_with_its_entries
                a_put_replaces_the_binding
                clearing_a_map_forgets_the_bindings
                a_lease_granted_and_used_and_dropped_in_one_transaction
                a_lease_lives_on_while_it_is_renewed
            }
            lifetimes {
                an_entry_lives_for_its_time
                an_entry_is_present_until_it_is_swept
                each_put_sets_the_lifetime_anew
                an_expired_map_is_removed_and_begins_another_life
                a_maps_deadline_is_set_once_or_renewed_or_taken_back
                a_maps_deadline_counts_after_all_other_writes
            }
            sweeps {
                a_scope_without_deadlines_has_nothing_to_sweep
                a_sweep_says_when_the_next_deadline_comes
                an_expired_lease_is_swept_with_its_entries_in_all_maps
                many_entries_are_swept_in_bounded_steps
                two_clients_that_sweep_do_the_work_once
            }
            limits {
                what_is_larger_than_the_limits_is_refused
                what_just_fits_the_limits_is_accepted
                a_list_does_not_grow_over_the_limit_of_a_value
                names_that_are_empty_or_too_long_are_refused
                requests_that_make_no_sense_are_refused
                the_backend_names_its_target
            }
            cancellation {
                a_dropped_commit_is_carried_out_whole_or_not_at_all
                no_event_is_lost_by_a_dropped_read_of_a_group
                what_a_dropped_read_left_is_not_returned_once_another_took_it
                a_dropped_wait_of_one_consumer_takes_nothing_from_another
                hundreds_of_dropped_waits_leave_nothing_behind
                a_dropped_read_of_a_stream_loses_nothing
            }
            closing {
                every_call_after_it_fails
                it_ends_the_waits
                it_ends_the_feeds_after_what_they_hold
                it_may_be_done_twice
                it_leaves_other_clients_alone
            }
        }
    };
}
