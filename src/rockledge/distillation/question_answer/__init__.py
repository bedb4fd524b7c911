"""`--synthesize`: the teacher writes questions and answers from documents, which a student then learns."""
