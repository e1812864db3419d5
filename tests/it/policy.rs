//! Trust policies: what loads, what is refused, what is granted, and that it explains itself.

mod dangerous;
mod deciding;
mod explaining;
mod loading;
mod matching;
mod properties;
mod selecting;
mod shared;
