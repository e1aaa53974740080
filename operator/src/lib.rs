//! The operator: observe, plan, apply, status.
