//! The few protobuf messages that answers are made of.

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

pub(super) fn put_varint_field(bytes: &mut Vec<u8>, number: u8, value: u64) {
    bytes.push(number << 3);
    put_varint(bytes, value);
}

pub(super) fn put_bytes_field(bytes: &mut Vec<u8>, number: u8, value: &[u8]) {
    bytes.push(number << 3 | 2);
    put_varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

/// `google.rpc.Status` without details.
pub(super) fn status(code: u8, message: &str) -> Vec<u8> {
    let mut status = Vec::new();
    put_varint_field(&mut status, 1, u64::from(code));
    put_bytes_field(&mut status, 2, message.as_bytes());
    status
}

/// The `google.rpc.RetryInfo` that goes into the details of a `google.rpc.Status`.
pub(super) fn put_retry_info(status: &mut Vec<u8>, seconds: u64) {
    let mut duration = Vec::new();
    put_varint_field(&mut duration, 1, seconds);
    let mut info = Vec::new();
    put_bytes_field(&mut info, 1, &duration);
    let mut any = Vec::new();
    put_bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes_field(&mut any, 2, &info);
    put_bytes_field(status, 3, &any);
}
