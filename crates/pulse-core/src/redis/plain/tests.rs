use super::*;
use crate::Scope;

fn begin() -> Transaction {
    Transaction::new(&Scope::new("s").unwrap())
}

fn goes_shortly(transaction: &Transaction) -> bool {
    Plan::of(transaction).is_some()
}

#[test]
fn what_is_put_and_then_deleted_in_one_map_goes_the_short_way() {
    let transaction = begin().put("m", "a", "1").put("n", "b", "1").delete("m", "c").delete("n", "d");
    assert!(goes_shortly(&transaction));
    assert!(goes_shortly(&transaction.without_previous()));
    let transaction = begin().put_bound("m", "a", "1", Binding::Ttl(std::time::Duration::from_secs(1)));
    assert!(goes_shortly(&transaction.delete("m", "c")));
}

/// As a worker pool writes down what becomes of its jobs.
#[test]
fn a_mix_of_records_that_come_change_and_go_goes_the_short_way() {
    let result = Binding::Ttl(std::time::Duration::from_secs(1));
    let transaction = begin()
        .without_previous()
        .expect_absent("jobs", "new")
        .expect_absent("workers", "shutdown")
        .expect_fewer_than("queue", 10)
        .expect_equals("workers", "w", "1")
        .put("jobs", "new", "1")
        .put("payloads", "new", "1")
        .put("queue", "new", "")
        .expect_lease_alive(LeaseId(1))
        .expect_equals("jobs", "starts", "1")
        .put("jobs", "starts", "2")
        .delete("queue", "starts")
        .expect_equals("jobs", "ends", "2")
        .delete("jobs", "ends")
        .delete("payloads", "ends")
        .delete("queue", "ends")
        .delete("progress", "ends")
        .put_bound("results", "ends", "1", result);
    assert!(goes_shortly(&transaction));
}

#[test]
fn what_the_order_of_the_writes_decides_on_goes_the_general_way() {
    assert!(!goes_shortly(&begin().delete("m", "a").put("m", "b", "1")));
    assert!(!goes_shortly(&begin().put("m", "a", "1").delete("m", "a")));
    assert!(!goes_shortly(&begin().put("m", "a", "1").delete("m", "b").delete("m", "b")));
    // Of different maps it decides on nothing.
    assert!(goes_shortly(&begin().delete("m", "a").put("n", "a", "1")));
}

#[test]
fn more_than_fits_into_one_message_goes_the_general_way() {
    let many = |puts: usize, deletions: usize| {
        let transaction = (0..puts).fold(begin(), |transaction, at| transaction.put("m", format!("p{at}"), "1"));
        (0..deletions).fold(transaction, |transaction, at| transaction.delete("m", format!("d{at}")))
    };
    assert!(goes_shortly(&many(500, 500).without_previous()));
    assert!(!goes_shortly(&many(500, 501).without_previous()));
}
