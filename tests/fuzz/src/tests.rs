//! The targets on their seeds, and on what fuzzing found.

use super::*;

#[test]
fn the_seeds_hold() {
    seeds::messages().iter().chain(&seeds::hostile()).for_each(|seed| message(seed));
    message(&seeds::long_owner_names());
    for seed in seeds::choices() {
        stream(&seed);
        fragments(&seed);
    }
    seeds::frames().iter().for_each(|seed| frame(seed));
    seeds::files().iter().for_each(|seed| replay_file(seed));
}

/// A seed that stops at the first check would be no place to begin.
#[test]
fn the_seeds_reach_far() {
    use tap53_dns::{Message, ParseStatus};
    for seed in seeds::messages() {
        let message = Message::parse(&seed).expect("a header");
        assert_eq!(message.parse_status, ParseStatus::Ok, "{message:?}");
        assert!(message.edns().is_some_and(|edns| edns.client_subnet.is_some()));
    }
}

/// Without such seeds, the check of the work could not fail.
#[test]
fn the_hostile_seeds_reach_the_limit_of_work() {
    use tap53_dns::{Message, ParseStatus};
    let over = |seed: &&Vec<u8>| {
        Message::parse(seed).is_some_and(|read| read.parse_status == ParseStatus::WorkLimit)
    };
    assert!(seeds::hostile().iter().filter(over).count() > 10);
}

/// Without such a seed, the check of omitted questions could not fail.
#[test]
fn a_seed_has_more_text_in_its_questions_than_a_message_keeps() {
    use tap53_dns::{Message, ParseStatus};
    let omits = |seed: &Vec<u8>| {
        let message = Message::parse(seed).expect("a header");
        message.parse_status == ParseStatus::Ok && message.questions_omitted > 0
    };
    assert!(seeds::hostile().iter().any(omits));
}

type Found = (fn(&[u8]), &'static str);

#[test]
fn findings_of_fuzzing_stay_fixed() {
    /// Inputs in hexadecimal digits, for the target that they were found by.
    const FOUND: &[Found] = &[];
    for (target, hex) in FOUND {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
            .collect();
        target(&bytes);
    }
}
