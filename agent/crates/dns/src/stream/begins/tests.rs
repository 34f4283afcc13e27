use super::*;

fn judge(segment: &[u8]) -> Verdict {
    super::judge(segment, &mut 0)
}

/// Returns a framed query or response with this header from its flags on, the start of its
/// sections, and `size` bytes.
fn stream(header: [u8; 10], sections: &[u8], size: usize) -> Vec<u8> {
    let mut message = [&[7, 7][..], &header, sections].concat();
    message.resize(size, 1);
    let length = u16::try_from(size).unwrap().to_be_bytes();
    [&length[..], &message].concat()
}

const QUESTION: &[u8] = b"\x01a\x04test\x00\x00\x01\x00\x01";
const RECORD: &[u8] = b"\x01a\x04test\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x01\x01\x01\x01";

fn query(high: u8, low: u8) -> Vec<u8> {
    stream([high, low, 0, 1, 0, 0, 0, 0, 0, 0], QUESTION, 40)
}

#[test]
fn headers_of_requests_and_responses_pass() {
    for (high, low) in [(0x01, 0x20), (0x20, 0), (0x28, 0), (0x86, 0x80), (0x85, 0x83), (0x80, 11)]
    {
        assert_eq!(judge(&query(high, low)), Verdict::Begins, "{high:#x} {low:#x}");
    }
}

#[test]
fn impossible_headers_do_not_pass() {
    // The Z bit, TC and an RCODE in a request, an unassigned RCODE, STATUS, DSO.
    for (high, low) in [(0x01, 0x40), (0x02, 0), (0x01, 0x03), (0x80, 12), (0x10, 0), (0x30, 0)] {
        assert_eq!(judge(&query(high, low)), Verdict::Refused, "{high:#x} {low:#x}");
    }
    let answers_in_a_query = stream([1, 0, 0, 1, 0, 1, 0, 0, 0, 0], QUESTION, 60);
    let two_questions = stream([1, 0, 0, 2, 0, 0, 0, 0, 0, 0], QUESTION, 60);
    for refused in [answers_in_a_query, two_questions] {
        assert_eq!(judge(&refused), Verdict::Refused);
    }
}

#[test]
fn counts_must_fit_the_length() {
    let with_records = |size| stream([0x80, 0, 0, 1, 0, 2, 0, 0, 0, 1], QUESTION, size);
    assert_eq!(judge(&with_records(12 + 5 + 33)), Verdict::Begins);
    assert_eq!(judge(&with_records(12 + 5 + 32)), Verdict::Refused);
}

#[test]
fn a_question_must_be_readable_and_of_a_class_that_exists() {
    for question in [
        &b"\x01a\x04test\x00\x00\x01\x00\x02"[..],
        b"\x01a\x04test\x00\x00\x00\x00\x01",
        b"\x01a\xc0\x0c\x00\x01\x00\x01",
        b"\x40a\x04test\x00\x00\x01\x00\x01",
    ] {
        let stream = stream([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], question, 40);
        assert_eq!(judge(&stream), Verdict::Refused, "{question:?}");
    }
    let endless = stream([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &[1; 400], 412);
    assert_eq!(judge(&endless), Verdict::Refused);
}

#[test]
fn responses_without_a_question_pass() {
    let transfer = stream([0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0], RECORD, 12 + RECORD.len());
    let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    let error_with_opt = stream([0x80, 1, 0, 0, 0, 0, 0, 0, 0, 1], opt, 12 + opt.len());
    let error = stream([0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[], 12);
    for begins in [&transfer, &error_with_opt, &error] {
        assert_eq!(judge(begins), Verdict::Begins);
    }
    let cut_rdata = stream([0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0], RECORD, 11 + RECORD.len());
    let no_error = stream([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 12);
    let a_request = stream([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 12);
    for refused in [cut_rdata, no_error, a_request] {
        assert_eq!(judge(&refused), Verdict::Refused);
    }
}

#[test]
fn later_messages_in_the_segment_must_pass_too() {
    let first = query(1, 0);
    assert_eq!(judge(&[&first[..], &first].concat()), Verdict::Begins);
    assert_eq!(judge(&[&first[..], &first[..9]].concat()), Verdict::Begins);
    assert_eq!(judge(&[&first[..], &query(2, 0)].concat()), Verdict::Refused);
    assert_eq!(judge(&[&first[..], &first, &[0, 3]].concat()), Verdict::Refused);
}
