//! Who there is: an authority, users, hosts. Made once for many runs, since nothing depends on the keys.

use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, PkiError, Trust};
use muster_protocol::{HostName, Identity, Timestamp};

/// What the true clock shows when a run begins.
pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// Certificates and keys.
#[derive(Debug)]
pub struct Site {
    authority: String,
    /// Revokes nobody.
    pub(crate) list_before: String,
    /// Revokes `rita`.
    pub(crate) list_after: String,
    /// An administrator: may do everything that the policy in force knows.
    pub(crate) lea: Credentials,
    /// Another one, whose certificate is revoked in some runs.
    pub(crate) rita: Credentials,
    /// May read.
    pub(crate) max: Credentials,
    /// May do nothing, and tries.
    pub(crate) eve: Credentials,
    pub(crate) hosts: Vec<Credentials>,
}

impl Site {
    /// Makes the certificates for so many hosts.
    ///
    /// # Errors
    /// When the temporary directory cannot be written.
    pub fn new(hosts: usize) -> Result<Self, PkiError> {
        let authority = TestAuthority::new(NOW)?;
        let rita = authority.credentials_with_groups("user/rita", &["admins"])?;
        let list_before = authority.crl_pem()?;
        let lea = authority.credentials_with_groups("user/lea", &["admins"])?;
        let (max, eve) = (authority.credentials("user/max")?, authority.credentials("user/eve")?);
        let names: Vec<Identity> = (0..hosts).map(|index| Identity::Host(host_name(index))).collect();
        let hosts = authority.fleet(&names)?;
        authority.revoke(&rita)?;
        let list_after = authority.crl_pem()?;
        Ok(Self { authority: authority.ca_pem(), list_before, list_after, lea, rita, max, eve, hosts })
    }

    /// A trust of its own, with the first revocation list.
    pub(crate) fn trust(&self) -> Result<Trust, PkiError> {
        let trust = Trust::from_pem(&self.authority)?;
        trust.install_crl(self.list_before.as_bytes(), NOW)?;
        Ok(trust)
    }
}

/// The name of the host with this number.
pub(crate) fn host_name(index: usize) -> HostName {
    HostName::new(format!("h{index:03}.sim")).expect("letters, digits and a dot")
}
