//! `doctor`: is the server there, and has our role just enough rights?
