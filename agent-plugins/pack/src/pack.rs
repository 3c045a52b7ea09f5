//! An archive in memory: made and signed, or opened and checked.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use muster_pki::{Credentials, Signer, Trust};
use muster_protocol::ddl::Ddl;
use muster_protocol::{Envelope, GroupName, PluginName, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::archive;
use crate::error::PackError;
use crate::manifest::{FileEntry, Manifest};

/// What kind of bytes the signature is about, so that it can never be taken for a command's.
pub const PAYLOAD_TYPE: &str = "application/vnd.muster.plugin-pack.v1+json";

/// Largest archive, in bytes. It travels in one signed command of at most 1 MiB, where base64 makes
/// 683 KiB of it, beside the names of a hundred hosts.
pub const PACK_BYTES_MAX: usize = 512 * 1024;

/// Most bytes of all its files together, unpacked.
pub const UNPACKED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The names of the two files beside the plugin's own. The plugin's are below its name.
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.dsse";

/// One file with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Where it is, below the plugin's folder.
    pub path: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// An archive whose files are what its manifest says. Who signed it is not known before
/// [`Pack::verify`].
#[derive(Debug, Clone)]
pub struct Pack {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    envelope: Envelope,
    ddl: Ddl,
    contents: Vec<Content>,
    bytes: Vec<u8>,
    sha256: String,
}

impl Pack {
    /// Packs files and signs them. Name and version are those of the description among them.
    ///
    /// # Errors
    /// The description is missing or wrong, or the files break a bound.
    pub fn make(
        name: &PluginName,
        mut contents: Vec<Content>,
        credentials: &Credentials,
        created_at: Timestamp,
    ) -> Result<Self, PackError> {
        contents.sort_by(|one, other| one.path.cmp(&other.path));
        let ddl = description(name, &contents)?;
        let entry = |content: &Content| FileEntry {
            path: content.path.clone(),
            executable: content.executable,
            bytes: content.bytes.len() as u64,
            sha256: sha256_hex(&content.bytes),
        };
        let files = contents.iter().map(entry).collect();
        let version = ddl.metadata.version.clone();
        let made_by = credentials.identity().short();
        let manifest = Manifest::new(name.clone(), version, created_at, made_by, files)?;
        let written = |error: serde_json::Error| PackError::malformed(format!("it cannot be written: {error}"));
        let mut manifest_bytes = serde_json::to_vec_pretty(&manifest).map_err(written)?;
        manifest_bytes.push(b'\n');
        let signature = credentials.sign(PAYLOAD_TYPE, &manifest_bytes);
        let envelope = Envelope::new(PAYLOAD_TYPE, &manifest_bytes, vec![signature]);
        let envelope_bytes = serde_json::to_vec(&envelope).map_err(written)?;
        let mut files: Vec<(String, bool, &[u8])> =
            vec![(MANIFEST.to_owned(), false, &manifest_bytes), (SIGNATURE.to_owned(), false, &envelope_bytes)];
        files.extend(
            contents
                .iter()
                .map(|content| (format!("{name}/{}", content.path), content.executable, content.bytes.as_slice())),
        );
        // Opened again: what is given out is what others will accept.
        Self::open(&archive::write(&files)?)
    }

    /// Reads an archive and compares every file with the manifest.
    ///
    /// # Errors
    /// It is too large, no archive, has something that the manifest does not name, lacks something, or
    /// has another content than it says. Says nothing about the signature.
    pub fn open(bytes: &[u8]) -> Result<Self, PackError> {
        let mut files = archive::read(bytes)?;
        let mut take = |path: &str| files.remove(path).map(|(_, content)| content);
        let missing = |path: &str| PackError::malformed(format!("it has no file `{path}`"));
        let manifest_bytes = take(MANIFEST).ok_or_else(|| missing(MANIFEST))?;
        let envelope = take(SIGNATURE).ok_or_else(|| missing(SIGNATURE))?;
        let envelope: Envelope = serde_json::from_slice(&envelope)
            .map_err(|error| PackError::malformed(format!("its signature cannot be read: {error}")))?;
        let signed = envelope.body().map_err(|error| PackError::malformed(error.to_string()))?;
        if signed != manifest_bytes || envelope.payload_type != PAYLOAD_TYPE {
            return Err(PackError::Checksum { path: MANIFEST.to_owned() });
        }
        let manifest = Manifest::parse(&manifest_bytes)?;
        let mut contents = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            let path = format!("{}/{}", manifest.name, file.path);
            let (executable, content) = files.remove(&path).ok_or_else(|| missing(&path))?;
            let is_same = executable == file.executable
                && content.len() as u64 == file.bytes
                && sha256_hex(&content) == file.sha256;
            if !is_same {
                return Err(PackError::Checksum { path });
            }
            contents.push(Content { path: file.path.clone(), executable, bytes: content });
        }
        if let Some(path) = files.keys().next() {
            return Err(PackError::malformed(format!("it has a file `{path}` that its manifest does not name")));
        }
        let ddl = description(&manifest.name, &contents)?;
        if ddl.metadata.version != manifest.version {
            return Err(PackError::malformed("the version of its manifest is not the description's"));
        }
        Ok(Self { manifest, manifest_bytes, envelope, ddl, contents, bytes: bytes.to_vec(), sha256: sha256_hex(bytes) })
    }

    /// Who signed it, if everybody who did is to be believed now and one of them is in one of `groups`.
    ///
    /// # Errors
    /// A signature or certificate is not accepted, or nobody of the signers may.
    pub fn verify(
        &self,
        trust: &Trust,
        groups: &BTreeSet<GroupName>,
        now: Timestamp,
    ) -> Result<Vec<Signer>, PackError> {
        let signers = self.signers(trust, now)?;
        if signers.iter().any(|signer| signer.identity.is_controller() && !signer.groups.is_disjoint(groups)) {
            return Ok(signers);
        }
        Err(PackError::Signer {
            signers: signers.iter().map(|signer| signer.identity.short()).collect(),
            groups: groups.iter().map(ToString::to_string).collect(),
        })
    }

    /// Who signed it, whoever that is.
    ///
    /// # Errors
    /// A signature or certificate is not accepted.
    pub fn signers(&self, trust: &Trust, now: Timestamp) -> Result<Vec<Signer>, PackError> {
        trust
            .verify(PAYLOAD_TYPE, &self.manifest_bytes, &self.envelope.signatures, now)
            .map_err(|source| PackError::Signature { source })
    }

    /// What it says that it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The plugin's description.
    #[must_use]
    pub fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    /// The files.
    #[must_use]
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// The archive as a file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the archive, lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The name that the archive's file should have.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}.tar.gz", self.manifest.name, self.manifest.version.replace(':', "_"))
    }

    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

fn description(name: &PluginName, contents: &[Content]) -> Result<Ddl, PackError> {
    let path = format!("{name}.json");
    let wrong = |why: String| PackError::malformed(format!("its description `{path}` {why}"));
    let content = contents.iter().find(|content| content.path == path);
    let content = content.ok_or_else(|| wrong("is missing".to_owned()))?;
    let text = std::str::from_utf8(&content.bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    let ddl = Ddl::parse(text).map_err(|error| wrong(format!("is wrong: {error}")))?;
    if ddl.name() != name {
        return Err(wrong(format!("is of plugin `{}`", ddl.name())));
    }
    Ok(ddl)
}

/// SHA-256 of `bytes`, 64 hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}
