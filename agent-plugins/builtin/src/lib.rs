//! The built-in plugins: host, package, service, puppet.
