use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use clock::Instant;

fn ip_key(text: &str) -> Key {
    Key::from_ipv4_or_ipv6_network(text.parse::<IpAddr>().unwrap())
}

fn query_limits() -> Windows<2> {
    Windows::new([Rule { hits: 3, window_seconds: 60 }, Rule { hits: 2, window_seconds: 60 }])
}

#[test]
fn the_fourth_hit_of_an_address_waits_until_the_first_has_left() {
    let (limit, client) = (query_limits(), ip_key("192.0.2.1"));
    for n in 0..3 {
        assert_eq!(limit.count_hit_unless_limited(Instant(n * 10_000), [client, Key::from_subject(n)]), Ok(()));
    }
    assert_eq!(
        limit.count_hit_unless_limited(Instant(30_001), [client, Key::from_subject(3)]),
        Err(Limited { after_seconds: 30 })
    );
    assert_eq!(
        limit.count_hit_unless_limited(Instant(59_999), [client, Key::from_subject(4)]),
        Err(Limited { after_seconds: 1 })
    );
    assert_eq!(limit.count_hit_unless_limited(Instant(60_000), [client, Key::from_subject(5)]), Ok(()));
    assert_eq!(
        limit.count_hit_unless_limited(Instant(60_000), [client, Key::from_subject(6)]),
        Err(Limited { after_seconds: 10 })
    );
}

#[test]
fn the_third_hit_of_a_pair_is_refused_from_another_address_and_counts_for_none() {
    let (limit, pair, now) = (query_limits(), Key::from_subject(("CO1", "a@example.com")), Instant(1_000));
    limit.count_hit_unless_limited(now, [ip_key("192.0.2.1"), pair]).unwrap();
    limit.count_hit_unless_limited(now, [ip_key("192.0.2.2"), pair]).unwrap();
    for _ in 0..5 {
        assert_eq!(
            limit.count_hit_unless_limited(now, [ip_key("192.0.2.3"), pair]),
            Err(Limited { after_seconds: 60 })
        );
    }
    for n in 0..3 {
        assert_eq!(limit.count_hit_unless_limited(now, [ip_key("192.0.2.3"), Key::from_subject(n)]), Ok(()));
    }
}

#[test]
fn a_clock_that_goes_back_opens_no_window() {
    let limit = Windows::new([Rule { hits: 1, window_seconds: 60 }]);
    limit.count_hit_unless_limited(Instant(100_000), [Key::from_subject(1)]).unwrap();
    assert_eq!(
        limit.count_hit_unless_limited(Instant(10_000), [Key::from_subject(1)]),
        Err(Limited { after_seconds: 60 })
    );
    assert_eq!(limit.count_hit_unless_limited(Instant(10_000), [Key::from_subject(2)]), Ok(()));
}

#[test]
fn a_rule_of_no_hits_admits_nobody() {
    let limit = Windows::new([Rule { hits: 0, window_seconds: 60 }]);
    assert_eq!(limit.count_hit_unless_limited(Instant(0), [Key::from_subject(1)]), Err(Limited { after_seconds: 60 }));
}

#[test]
fn one_network_of_ipv6_and_one_mapped_address_are_one_client() {
    assert_eq!(ip_key("2001:db8::1"), ip_key("2001:db8::ffff:1"));
    assert_ne!(ip_key("2001:db8::1"), ip_key("2001:db8:0:1::1"));
    assert_eq!(ip_key("::ffff:192.0.2.1"), ip_key("192.0.2.1"));
    assert_ne!(ip_key("192.0.2.1"), ip_key("192.0.2.2"));
}

#[test]
fn a_bucket_holds_a_minute_of_hits_and_refills_evenly() {
    let buckets = Buckets::with_hits_per_minute(30);
    for _ in 0..30 {
        buckets.count_hit_unless_limited(Instant(5_000), Key::from_subject(1)).unwrap();
    }
    assert_eq!(
        buckets.count_hit_unless_limited(Instant(5_000), Key::from_subject(1)),
        Err(Limited { after_seconds: 2 })
    );
    assert_eq!(buckets.count_hit_unless_limited(Instant(5_000), Key::from_subject(2)), Ok(()));
    assert_eq!(buckets.count_hit_unless_limited(Instant(7_000), Key::from_subject(1)), Ok(()));
    assert_eq!(
        buckets.count_hit_unless_limited(Instant(7_000), Key::from_subject(1)),
        Err(Limited { after_seconds: 2 })
    );
}

#[test]
fn buckets_that_are_full_again_are_forgotten() {
    let buckets = Buckets::with_hits_per_minute(600);
    for n in 0..100_000_i64 {
        buckets.count_hit_unless_limited(Instant(n), Key::from_subject(n)).unwrap();
    }
    // A bucket is full again 100 ms after one hit, so only about 100 buckets are not full at any time.
    assert!(buckets.count_keys() <= 1024);
}

proptest! {
    /// A hit is admitted exactly when fewer than three hits of its key were admitted in the 60 s before it.
    #[test]
    fn windows_are_exact(steps in prop::collection::vec((0_i64..40_000, 0_u8..3), 1..80)) {
        let limit = Windows::new([Rule { hits: 3, window_seconds: 60 }]);
        let mut admitted: Vec<(i64, u8)> = Vec::new();
        let mut now = 0;
        for (step, key) in steps {
            now += step;
            let before = admitted.iter().filter(|(at, k)| *k == key && now - at < 60_000).count();
            let answer = limit.count_hit_unless_limited(Instant(now), [Key::from_subject(key)]);
            prop_assert_eq!(answer.is_ok(), before < 3);
            if answer.is_ok() {
                admitted.push((now, key));
            }
        }
    }

    /// A client that waits for the returned number of seconds is admitted.
    #[test]
    fn the_told_wait_is_enough(hits in 1_u32..100, tries in 1_usize..300, step in 0_i64..500) {
        let (windows, buckets) = (Windows::new([Rule { hits, window_seconds: 60 }]), Buckets::with_hits_per_minute(hits));
        let mut now = 1_000_000;
        for _ in 0..tries {
            now += step;
            for told in [windows.count_hit_unless_limited(Instant(now), [Key::from_subject(1)]), buckets.count_hit_unless_limited(Instant(now), Key::from_subject(1))] {
                if let Err(limited) = told {
                    prop_assert!((1..=60).contains(&limited.after_seconds));
                }
            }
        }
        let told = windows.count_hit_unless_limited(Instant(now), [Key::from_subject(1)]).err();
        let later = now + told.map_or(0, |l| i64::try_from(l.after_seconds).unwrap() * 1000);
        if told.is_some() {
            prop_assert!(windows.count_hit_unless_limited(Instant(later), [Key::from_subject(1)]).is_ok());
        }
    }
}
