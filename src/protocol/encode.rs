//! Writes the few messages that the proxy itself says. Each is appended to the bytes already there.
//!
//! Strings are taken as they are: a caller never hands in a NUL, which would end the string early.

use super::backend::TransactionStatus;
use super::cancel_key::CancelKey;
use super::startup::{CANCEL_REQUEST_CODE, Parameter, ProtocolVersion, SSL_REQUEST_CODE};

/// Appends a message: its tag, its length, and the body that `body` appends.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, body);
}

/// Appends a packet without a tag, as the first of a connection is: its length, and the body that `body` appends.
pub fn untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // On the wire the length counts itself, but not the tag.
    let length = i32::try_from(out.len() - length_at).expect("the proxy's own messages are short");
    out.get_mut(length_at..length_at + 4)
        .expect("four bytes were put here above")
        .copy_from_slice(&length.to_be_bytes());
}

fn c_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

// Backend messages: to clients.

/// AuthenticationOk: the client is who it says.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, b"");
}

/// AuthenticationCleartextPassword: asks for the password as it is.
pub fn authentication_cleartext_password(out: &mut Vec<u8>) {
    authentication(out, 3, b"");
}

/// AuthenticationMD5Password: asks for the password's hash.
pub fn authentication_md5_password(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// AuthenticationSASL: offers mechanisms, the best first.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    message(out, b'R', |body| {
        body.extend_from_slice(&10i32.to_be_bytes());
        for mechanism in mechanisms {
            c_string(body, mechanism.as_bytes());
        }
        body.push(0);
    });
}

/// AuthenticationSASLContinue: a challenge.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, challenge: &[u8]) {
    authentication(out, 11, challenge);
}

/// AuthenticationSASLFinal: what the mechanism says at its end.
pub fn authentication_sasl_final(out: &mut Vec<u8>, outcome: &[u8]) {
    authentication(out, 12, outcome);
}

fn authentication(out: &mut Vec<u8>, kind: i32, rest: &[u8]) {
    message(out, b'R', |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(rest);
    });
}

/// NegotiateProtocolVersion: the version that will be spoken, and the protocol options that won't.
pub fn negotiate_protocol_version<'a>(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    unrecognized_options: impl ExactSizeIterator<Item = &'a [u8]>,
) {
    message(out, b'v', |body| {
        body.extend_from_slice(&version.code().to_be_bytes());
        let count = i32::try_from(unrecognized_options.len())
            .expect("a startup packet is too short for that many");
        body.extend_from_slice(&count.to_be_bytes());
        for option in unrecognized_options {
            c_string(body, option);
        }
    });
}

/// ParameterStatus: what a parameter is set to.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, b'S', |body| {
        c_string(body, name);
        c_string(body, value);
    });
}

/// BackendKeyData: what the client must present to cancel.
pub fn backend_key_data(out: &mut Vec<u8>, key: &CancelKey) {
    message(out, b'K', |body| cancel_key(body, key));
}

fn cancel_key(body: &mut Vec<u8>, key: &CancelKey) {
    body.extend_from_slice(&key.process_id().to_be_bytes());
    body.extend_from_slice(key.expose_secret());
}

/// ReadyForQuery: the client's turn.
pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    message(out, b'Z', |body| {
        body.push(match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        });
    });
}

/// CommandComplete: a statement is done, for example `SET`.
pub fn command_complete(out: &mut Vec<u8>, command_tag: &str) {
    message(out, b'C', |body| c_string(body, command_tag.as_bytes()));
}

/// EmptyQueryResponse: there was no statement.
pub fn empty_query_response(out: &mut Vec<u8>) {
    message(out, b'I', |_| {});
}

/// ParseComplete: the statement is prepared.
pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, b'1', |_| {});
}

/// BindComplete: the portal is there.
pub fn bind_complete(out: &mut Vec<u8>) {
    message(out, b'2', |_| {});
}

/// CloseComplete: the statement or portal is gone.
pub fn close_complete(out: &mut Vec<u8>) {
    message(out, b'3', |_| {});
}

/// NoData: the statement or portal returns no rows.
pub fn no_data(out: &mut Vec<u8>) {
    message(out, b'n', |_| {});
}

// Frontend messages: to servers.

/// StartupMessage: asks for a session.
pub fn startup_message<'a>(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    user: &[u8],
    database: &[u8],
    parameters: impl IntoIterator<Item = &'a Parameter>,
) {
    untagged(out, |body| {
        body.extend_from_slice(&version.code().to_be_bytes());
        for (name, value) in [(&b"user"[..], user), (b"database", database)] {
            c_string(body, name);
            c_string(body, value);
        }
        for (name, value) in parameters {
            c_string(body, name);
            c_string(body, value);
        }
        body.push(0);
    });
}

/// CancelRequest: asks to cancel the query of the session that this key was given to.
pub fn cancel_request(out: &mut Vec<u8>, key: &CancelKey) {
    untagged(out, |body| {
        body.extend_from_slice(&CANCEL_REQUEST_CODE.to_be_bytes());
        cancel_key(body, key);
    });
}

/// SSLRequest: asks for TLS.
pub fn ssl_request(out: &mut Vec<u8>) {
    untagged(out, |body| {
        body.extend_from_slice(&SSL_REQUEST_CODE.to_be_bytes());
    });
}

/// PasswordMessage: the password, or an MD5 answer.
pub fn password_message(out: &mut Vec<u8>, password: &[u8]) {
    message(out, b'p', |body| c_string(body, password));
}

/// SASLInitialResponse: picks a mechanism and says its first words.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, response: &[u8]) {
    message(out, b'p', |body| {
        c_string(body, mechanism.as_bytes());
        let length = i32::try_from(response.len()).expect("a first SASL message is short");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(response);
    });
}

/// SASLResponse: answers a challenge.
pub fn sasl_response(out: &mut Vec<u8>, response: &[u8]) {
    message(out, b'p', |body| body.extend_from_slice(response));
}

/// Query: statements as text.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, b'Q', |body| c_string(body, text));
}

/// Parse: prepares a statement; the empty name is the unnamed statement.
///
/// # Panics
/// With more than 65535 parameter types: Parse can't say more.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], parameter_types: &[u32]) {
    message(out, b'P', |body| {
        c_string(body, name);
        c_string(body, text);
        let count = u16::try_from(parameter_types.len()).expect("Parse counts in 16 bits");
        body.extend_from_slice(&count.to_be_bytes());
        for type_oid in parameter_types {
            body.extend_from_slice(&type_oid.to_be_bytes());
        }
    });
}

/// Bind of the unnamed statement to one text, with results as text, and Execute of all its rows.
pub fn bind_and_execute(out: &mut Vec<u8>, parameter: &[u8]) {
    message(out, b'B', |body| {
        // The unnamed portal, the unnamed statement, and no format but text.
        body.extend_from_slice(&[0, 0, 0, 0]);
        body.extend_from_slice(&1_u16.to_be_bytes());
        let length = i32::try_from(parameter.len()).expect("shorter than a message can be");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(parameter);
        body.extend_from_slice(&[0, 0]);
    });
    message(out, b'E', |body| body.extend_from_slice(&[0; 5]));
}

/// Bind of the unnamed statement, which takes no parameters, and Execute of all its rows.
pub fn bind_nothing_and_execute(out: &mut Vec<u8>) {
    message(out, b'B', |body| body.extend_from_slice(&[0; 8]));
    message(out, b'E', |body| body.extend_from_slice(&[0; 5]));
}

/// CopyFail: data that were asked for will not come, for this reason.
pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) {
    message(out, b'f', |body| c_string(body, reason));
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, b'C', |body| {
        body.push(b'S');
        c_string(body, name);
    });
}

/// Sync: the end of a group of extended messages.
pub fn sync(out: &mut Vec<u8>) {
    message(out, b'S', |_| {});
}

/// Flush: asks for the replies that are held back until Sync.
pub fn flush(out: &mut Vec<u8>) {
    message(out, b'H', |_| {});
}

/// Terminate: goodbye.
pub fn terminate(out: &mut Vec<u8>) {
    message(out, b'X', |_| {});
}

#[cfg(test)]
mod tests;
