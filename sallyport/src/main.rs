//! Sallyport.
fn main() {}
