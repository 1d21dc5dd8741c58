//! What needs no privilege, or says that it was skipped.
