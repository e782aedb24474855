"""Masks of aligned reads: matched with the records they were made from, and laid out along the reference.

records.py                  records of the input -> Matched        each with its row's mask
pieces.py, supplementary.py Matched -> Piece                       the aligned part of each, in the reference's order
genome.py, tally.py         Piece -> Tally                         sum and number of mask values, base by base
tracks.py                   Tally -> bedGraph, bigWig
"""
