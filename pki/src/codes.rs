//! The stable codes of [`crate::PkiError`], explained, for `muster explain`.

use muster_protocol::Code;

/// One row per code, in the order in which an operator meets them.
pub const CODES: &[Code] = &[
    Code {
        code: "no-authority",
        summary: "the directory holds no certificate authority",
        explanation: "`muster pki` keeps its authority in /etc/muster/ca unless --ca-dir or MUSTER_CA_DIR says otherwise. `muster pki init` makes a new one; do that once per site, not once per machine.",
    },
    Code {
        code: "authority-locked",
        summary: "another process is changing the CA directory",
        explanation: "One operator at a time changes the authority. Wait for the other command to end and try again. The lock ends with its process, so it cannot be left behind.",
    },
    Code {
        code: "authority-expired",
        summary: "the authority's own certificate is over",
        explanation: "Nothing it signs would be accepted. Make a new authority and go through the rotation described in the chapter on the PKI.",
    },
    Code {
        code: "identity-taken",
        summary: "the identity already has a certificate in force",
        explanation: "Two machines or people must not get the same identity unnoticed. Add --renew if this is the same owner with a newer certificate; revoke the old one first if its key was lost or stolen; choose another name otherwise.",
    },
    Code {
        code: "other-identity",
        summary: "the request asks for another identity than the operator",
        explanation: "The operator decides the identity. Look at the request again and compare the key's fingerprint with the one shown on the host before you overrule it. Nothing was signed. Exit code 9.",
    },
    Code {
        code: "not-for-kind",
        summary: "this kind of certificate cannot have that",
        explanation: "Groups belong to users and services, which command. DNS names and IP addresses belong to brokers, which are servers.",
    },
    Code {
        code: "no-certificate",
        summary: "the authority has no such certificate",
        explanation: "`muster pki list` shows every certificate that was ever issued, with its identity and the beginning of its serial.",
    },
    Code {
        code: "ambiguous-serial",
        summary: "the serial fits several certificates",
        explanation: "Give more of its digits; `muster pki list --json` shows them whole.",
    },
    Code {
        code: "already-revoked",
        summary: "the certificate is revoked already",
        explanation: "A revocation cannot be changed or taken back. `muster pki show` says when and why it was made.",
    },
    Code {
        code: "file-exists",
        summary: "a file is in the way",
        explanation: "Keys and certificates are never overwritten, since somebody may still need them. Choose another directory or move the file away. A key without a certificate beside it is left over from a command that was interrupted.",
    },
    Code {
        code: "file-unreadable",
        summary: "a file cannot be read",
        explanation: "The lines below the error say which file and what the system said about it.",
    },
    Code {
        code: "file-unwritable",
        summary: "a file cannot be written",
        explanation: "The lines below the error say which file and what the system said about it. What was there before is unchanged.",
    },
    Code {
        code: "bad-file",
        summary: "a certificate, key, request or list cannot be used",
        explanation: "It is damaged, of another kind than expected, or uses another algorithm than Ed25519. The message says which object and why.",
    },
    Code {
        code: "bad-identity",
        summary: "a certificate names no usable identity",
        explanation: "The first URI in its subject alternative name must be `muster:KIND/NAME`, the only one of its sort, and further ones groups. The chapter on the PKI describes the whole profile.",
    },
    Code {
        code: "bad-value",
        summary: "a value is out of range or of the wrong form",
        explanation: "The message says what is expected instead.",
    },
    Code {
        code: "key-exposed",
        summary: "a private key can be read by more than its owner",
        explanation: "Such a key is refused. If others may have read it, revoke the certificate and make a new key; otherwise `chmod 600`.",
    },
    Code {
        code: "directory-exposed",
        summary: "the CA directory can be entered by more than its owner",
        explanation: "The directory holds the key that everybody trusts. `chmod 700`, and think about who may have been there.",
    },
    Code {
        code: "key-mismatch",
        summary: "key and certificate do not belong together",
        explanation: "The key file holds another key than the certificate was made for. Often a renewed certificate was copied without its key, or the other way round.",
    },
    Code {
        code: "index-damaged",
        summary: "the authority's index is damaged",
        explanation: "A whole line of index.jsonl is not what it was when it was written; a crash alone cannot do that. Nothing was changed. Restore the CA directory from a backup, and compare the revocation list's number: a list older than the one in use is not accepted by anybody.",
    },
    Code {
        code: "foreign-crl",
        summary: "the revocation list comes from somebody else",
        explanation: "None of the trusted authorities signed it. Nothing was changed.",
    },
    Code {
        code: "crl-rollback",
        summary: "the revocation list is not newer than the one in force",
        explanation: "Lists are numbered and only a higher number replaces a list, so that nobody can undo a revocation with an old list. After a CA directory was restored from a backup, `muster pki crl` makes one with a higher number.",
    },
    Code {
        code: "certificate-not-built",
        summary: "the certificate, request or list could not be built",
        explanation: "The library that writes them refused. This is a bug, or a name with characters that certificates cannot hold.",
    },
    Code {
        code: "not-a-server-certificate",
        summary: "the certificate cannot be a broker's towards its clients",
        explanation: "A broker shows a certificate whose identity is broker/NAME, made for servers by the authority that it trusts itself, in its time and not revoked. Clients refuse any other, so the broker does not start with one.",
    },
    Code {
        code: "foreign-certificate",
        summary: "the broker's certificate is of another authority than the one that is trusted",
        explanation: "Clients of the trusted authority would not connect, so the broker does not start. The message names the certificate's issuer and the trusted authorities with their fingerprints, the lines below it the files. Have a certificate issued by the trusted one, or trust the other: both must be the same here, for the agents and for whoever asks.",
    },
    Code {
        code: "tls-not-set-up",
        summary: "TLS cannot be set up with this certificate and key",
        explanation: "The TLS library refused them. The lines below the error say why.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_an_error_is_explained_and_no_other() {
        let source = include_str!("error.rs");
        let start = source.find("pub fn code(").unwrap();
        let end = start + source[start..].find("pub fn is_transient(").unwrap();
        let mut used: Vec<&str> =
            source[start..end].lines().filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()).collect();
        let mut explained: Vec<&str> = CODES.iter().map(|row| row.code).collect();
        used.sort_unstable();
        explained.sort_unstable();
        assert_eq!(used, explained);
        for row in CODES {
            assert!(row.explanation.ends_with('.') && !row.summary.ends_with('.'), "{}", row.code);
            assert!(Code::find(row.code).is_none(), "{} is a code of the protocol", row.code);
        }
    }
}
