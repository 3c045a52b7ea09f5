//! Plugin descriptions.
