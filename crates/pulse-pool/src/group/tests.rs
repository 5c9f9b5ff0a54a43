use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Doubles numbers, when it is let.
#[derive(Clone)]
struct Doubling {
    let_through: Arc<Semaphore>,
    requests: Arc<AtomicUsize>,
}

#[async_trait]
impl Kind for Doubling {
    type Item = u32;
    type Answer = u32;
    const FLIGHTS: usize = 2;

    async fn ask(&self, items: Vec<u32>) -> Vec<u32> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.let_through.acquire().await.unwrap().forget();
        assert!(!items.contains(&13), "unlucky");
        items.into_iter().map(|item| item * 2).collect()
    }
}

fn group() -> (Arc<Group<Doubling>>, Doubling) {
    let kind = Doubling { let_through: Arc::new(Semaphore::new(0)), requests: Arc::default() };
    (Arc::new(Group::new(kind.clone())), kind)
}

#[tokio::test]
async fn those_who_come_while_others_are_on_their_way_go_together() {
    let (group, kind) = group();
    let calls = (100..150).map(|number| {
        let group = group.clone();
        tokio::spawn(async move { group.ask(number).await })
    });
    let calls: Vec<_> = calls.collect();
    while kind.requests.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    kind.let_through.add_permits(100);
    for (number, call) in (100..).zip(calls) {
        assert_eq!(call.await.unwrap(), Some(number * 2));
    }
    assert!(kind.requests.load(Ordering::Relaxed) <= Doubling::FLIGHTS, "{:?}", kind.requests);
    landed(&group).await;
}

/// Notes how many are asked for at once.
struct Noting(Arc<Mutex<Vec<usize>>>);

#[async_trait]
impl Kind for Noting {
    type Item = ();
    type Answer = ();
    const FLIGHTS: usize = 1;

    async fn ask(&self, items: Vec<()>) -> Vec<()> {
        self.0.lock().unwrap().push(items.len());
        items
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_come_soon_after_an_answer_go_together() {
    let companies = Arc::new(Mutex::new(Vec::new()));
    let group = Arc::new(Group::new(Noting(companies.clone())));
    let calls = [1, 3, 5].map(|turns| {
        let group = group.clone();
        tokio::spawn(async move {
            group.ask(()).await;
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            group.ask(()).await
        })
    });
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(()));
    }
    assert_eq!(*companies.lock().unwrap(), [3, 3]);
}

/// Keeps each request until it is let through, and notes who was in it.
#[derive(Clone)]
struct Held {
    let_through: Arc<Semaphore>,
    companies: Arc<Mutex<Vec<Vec<u32>>>>,
}

#[async_trait]
impl Kind for Held {
    type Item = u32;
    type Answer = ();
    const FLIGHTS: usize = 2;
    const FEW: usize = 2;

    fn hurries(item: &u32) -> bool {
        *item >= 1000
    }

    async fn ask(&self, items: Vec<u32>) -> Vec<()> {
        let answers = vec![(); items.len()];
        let is_unlucky = items.contains(&13);
        self.companies.lock().unwrap().push(items);
        self.let_through.acquire().await.unwrap().forget();
        assert!(!is_unlucky);
        answers
    }
}

impl Held {
    fn group() -> (Arc<Group<Self>>, Self) {
        let kind = Self { let_through: Arc::new(Semaphore::new(0)), companies: Arc::default() };
        (Arc::new(Group::new(kind.clone())), kind)
    }

    /// Waits until so many requests have left, and nobody moves any more.
    async fn left(&self, count: usize) -> Vec<Vec<u32>> {
        while self.companies.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.companies.lock().unwrap().clone()
    }
}

fn ask_all(group: &Arc<Group<Held>>, items: impl IntoIterator<Item = u32>) -> Vec<tokio::task::JoinHandle<Option<()>>> {
    let ask = |item| {
        let group = group.clone();
        tokio::spawn(async move { group.ask(item).await })
    };
    items.into_iter().map(ask).collect()
}

#[tokio::test]
async fn beside_few_another_goes_at_once_and_beside_many_it_waits() {
    let (group, kind) = Held::group();
    let mut calls = ask_all(&group, [1]);
    assert_eq!(kind.left(1).await, [[1]]);
    calls.extend(ask_all(&group, [2]));
    assert_eq!(kind.left(2).await, [[1], [2]]);
    calls.extend(ask_all(&group, [3, 4, 5]));
    assert_eq!(kind.left(2).await.len(), 2, "two are on their way");
    kind.let_through.add_permits(1);
    assert_eq!(kind.left(3).await[2], [3, 4, 5]);
    calls.extend(ask_all(&group, [6]));
    // The other small one returns, and leaves those who wait to the large one.
    kind.let_through.add_permits(1);
    assert_eq!(kind.left(3).await.len(), 3);
    kind.let_through.add_permits(1);
    assert_eq!(kind.left(4).await[3], [6]);
    kind.let_through.add_permits(1);
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(()));
    }
    landed(&group).await;
    assert_eq!(group.0.lock().large, 0);
}

#[tokio::test]
async fn a_crowd_holds_up_nobody_who_hurries() {
    let (group, kind) = Held::group();
    let mut calls = ask_all(&group, [1]);
    kind.left(1).await;
    calls.extend(ask_all(&group, [2]));
    kind.left(2).await;
    calls.extend(ask_all(&group, 100..400));
    calls.extend(ask_all(&group, [1000, 1001]));
    kind.left(2).await;
    kind.let_through.add_permits(1);
    let third = kind.left(3).await.remove(2);
    assert_eq!(third[..3], [1000, 1001, 100]);
    assert_eq!(third.len(), 2 + MOST);
    // Nor do those who hurry, if they are a crowd, hold up the others.
    calls.extend(ask_all(&group, 1002..1500));
    kind.let_through.add_permits(2);
    let fourth = kind.left(4).await.remove(3);
    assert_eq!(fourth[..MOST], *(1002..1102).collect::<Vec<_>>());
    assert_eq!(fourth[MOST..], *(200..300).collect::<Vec<_>>());
    kind.let_through.add_permits(10);
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(()));
    }
}

#[tokio::test]
async fn a_large_request_that_panics_is_over() {
    let (group, kind) = Held::group();
    let first = ask_all(&group, [1]);
    kind.left(1).await;
    let second = ask_all(&group, [2]);
    kind.left(2).await;
    let unlucky = ask_all(&group, [11, 12, 13]);
    kind.let_through.add_permits(10);
    for call in unlucky {
        assert_eq!(call.await.unwrap(), None);
    }
    for call in first.into_iter().chain(second) {
        assert_eq!(call.await.unwrap(), Some(()));
    }
    landed(&group).await;
    assert_eq!(group.0.lock().large, 0);
    assert_eq!(group.ask(3).await, Some(()));
}

#[tokio::test]
async fn a_request_that_panics_concerns_those_in_it_alone() {
    let (group, kind) = group();
    kind.let_through.add_permits(1000);
    let call = |number| {
        let group = group.clone();
        tokio::spawn(async move { group.ask(number).await })
    };
    let unlucky: Vec<_> = (0..40).map(call).collect();
    for call in unlucky {
        // A panic, an answer or none.
        let _ = call.await;
    }
    assert_eq!(call(21).await.unwrap(), Some(42));
    landed(&group).await;
}

#[tokio::test]
async fn a_caller_that_gives_up_holds_up_nobody() {
    let (group, kind) = group();
    let given_up: Vec<_> = (0..9)
        .map(|number| {
            let group = group.clone();
            tokio::spawn(async move { group.ask(number).await })
        })
        .collect();
    while kind.requests.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    given_up.iter().for_each(tokio::task::JoinHandle::abort);
    kind.let_through.add_permits(100);
    assert_eq!(group.ask(4).await, Some(8));
    landed(&group).await;
}

#[tokio::test]
async fn a_caller_that_is_not_polled_holds_up_nobody() {
    let (group, kind) = group();
    let mut idle = Box::pin(group.ask(1));
    assert!(futures::poll!(&mut idle).is_pending());
    kind.let_through.add_permits(100);
    assert_eq!(group.ask(4).await, Some(8));
    assert_eq!(idle.await, Some(2));
}

#[test]
fn a_caller_whose_runtime_stands_still_holds_up_nobody() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (ours, theirs) = (runtime(), runtime());
    let (group, kind) = ours.block_on(async { group() });
    kind.let_through.add_permits(100);
    let asked = theirs.spawn({
        let group = group.clone();
        async move { group.ask(1).await }
    });
    // It has asked, and is not driven any more.
    theirs.block_on(tokio::task::yield_now());
    assert_eq!(ours.block_on(group.ask(4)), Some(8));
    assert_eq!(theirs.block_on(asked).unwrap(), Some(2));
    drop(ours);
    assert_eq!(theirs.block_on(group.ask(4)), None, "nobody can be asked any more");
}

/// The last flight ends right after its answers.
async fn landed<K: Kind>(group: &Group<K>) {
    while group.0.lock().flights > 0 {
        tokio::task::yield_now().await;
    }
}
